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

bool check_has_host_fd(void)
{
    return !check_is("poll") && !check_is("afd");
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

static const struct check_case *find(const char *name)
{
    for (const struct check_case *c = first_case; c != NULL; c = c->next) {
        if (strcmp(name, c->name) == 0)
            return c;
    }
    return NULL;
}

/* Starting a process takes long in some places, so several cases can share one. Then
 * the name of each is printed before it runs. */
static int run_all(int count, char **names)
{
    for (int i = 0; i < count; i++) {
        const struct check_case *found = find(names[i]);

        if (found == NULL)
            return 2;
        if (count > 1) {
            puts(names[i]);
            (void)fflush(stdout);
        }
        run(found);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s --list | CASE...\n", argv[0]);
        return 2;
    }
    if (strcmp(argv[1], "--list") != 0)
        return run_all(argc - 1, argv + 1);
    for (const struct check_case *c = first_case; c != NULL; c = c->next)
        puts(c->name);
    return 0;
}
