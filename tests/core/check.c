/* check.c: runs one case of a test program (check.h). */
#include "check.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "choose.h"

#if defined(FDMUX_KQUEUE_MODEL)
#include "kqueue_model.h"
#endif

#define SECONDS_MAX 60 /* a case that hangs is killed by SIGALRM */

static struct check_case *first_case;

void check_register(struct check_case *added)
{
    added->next = first_case;
    first_case = added;
}

void check_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;

    /* If writing fails, the exit status still reports the failure. */
    (void)fprintf(stderr, "%s:%d: ", file, line);
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    (void)fflush(stderr);
    _exit(1); /* also safe in a forked child and with other threads running */
}

const char *check_backend(void)
{
    const char *name = getenv("FDMUX_TEST_BACKEND");

    return name == NULL ? fdmux__backend_name(0) : name;
}

bool check_is(const char *backend)
{
    return strcmp(check_backend(), backend) == 0;
}

struct fdmux_loop *check_open_loop(void)
{
    struct fdmux_loop_options options = {
        .struct_size = sizeof options,
        .backend = check_backend(),
    };
    struct fdmux_loop *loop = NULL;

    CHECK_EQ(fdmux_loop_create(&options, &loop), 0);
    return loop;
}

/* proc(5): one entry per descriptor. Reading the directory always adds the same
 * three. */
int check_open_fds(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    CHECK(directory != NULL);
    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
#if defined(FDMUX_KQUEUE_MODEL)
    count -= kqueue_model_hidden_fds();
#endif
    return count;
}

static void run(const struct check_case *found)
{
    int fds_before = check_open_fds();

    (void)alarm(SECONDS_MAX);
    found->run();
    fdmux_testing_fail(0, 0, 0, 0);
#if !defined(FDMUX_KQUEUE_EMULATED) /* libkqueue closes its own when it likes */
    CHECK_EQ(check_open_fds(), fds_before);
#else
    (void)fds_before;
#endif
    CHECK_EQ(fdmux_testing_allocations(), 0);
}

int main(int argc, char **argv)
{
    bool is_listing = argc == 2 && strcmp(argv[1], "--list") == 0;

    for (struct check_case *c = first_case; c != NULL; c = c->next) {
        if (is_listing) {
            puts(c->name);
        } else if (argc == 2 && strcmp(argv[1], c->name) == 0) {
            run(c);
            return 0;
        }
    }
    if (!is_listing)
        (void)fprintf(stderr, "usage: %s --list | CASE\n", argv[0]);
    return is_listing ? 0 : 2;
}
