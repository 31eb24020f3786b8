/* plain.c: the trials as a C program without Python.
 *
 *     plain SCENARIO,... SILENT NAME@ADDRESS@CONTROL_FD...
 *
 * It prints what hosted.py prints. */
#include "trial.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define LIBRARIES_MAX 16

/* The drivers that are linked: -DLIBRARIES='X(hiredis) X(curl)'. */
#define X(name) extern const struct library library_##name;
LIBRARIES
#undef X
#define X(name) &library_##name,
static const struct library *const libraries[] = {LIBRARIES};
#undef X

static struct fdmux_loop *loop;
static int running_count;

static void on_ended(void *userdata)
{
    (void)userdata;
    if (--running_count == 0)
        (void)fdmux_loop_wake(loop);
}

static const struct library *find(const char *name)
{
    for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++)
        if (strcmp(libraries[i]->name, name) == 0)
            return libraries[i];
    fprintf(stderr, "no library %s\n", name);
    exit(2);
}

static int count_entries(const char *path)
{
    DIR *folder = opendir(path);
    int count = 0;

    if (folder == NULL)
        exit(2);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

struct given {
    const struct library *library;
    const char *address;
    int control_fd;
};

static struct given split(char *argument)
{
    char *address = strchr(argument, '@');
    char *control = strrchr(argument, '@');

    *address++ = *control++ = '\0';
    return (struct given){find(argument), address, atoi(control)};
}

static void print_report(const char *scenario, const struct library *library,
                         struct trial_report report)
{
    printf("{\"scenario\": \"%s\", \"library\": \"%s\", \"version\": \"%s\", "
           "\"verified\": %d, \"failed\": %d, \"lost\": %d, \"error\": \"%s\"}\n",
           scenario, library->name, library->version(), report.verified_count,
           report.failed_count, report.lost_count, report.error);
}

static void run(int count, const struct given *given, const char *scenario,
                const char *silent)
{
    struct trial *trials[LIBRARIES_MAX];

    if (fdmux_loop_create(NULL, &loop) < 0)
        exit(2);
    running_count = count;
    for (int i = 0; i < count; i++) {
        trials[i] = trial_begin(loop, given[i].library, scenario, given[i].address,
                                silent, given[i].control_fd, on_ended, NULL);
        if (trials[i] == NULL)
            exit(2);
    }
    while (running_count > 0) { /* outside of the loop's functions, every 5 ms */
        int r = fdmux_loop_dispatch(loop, INT64_C(5000000), NULL, 0);

        if (r < 0 && r != -EINTR)
            exit(3);
        for (int i = 0; i < count; i++)
            (void)trial_ask(trials[i]);
    }
    loop = fdmux_loop_destroy(loop);
    for (int i = 0; i < count; i++)
        print_report(scenario, given[i].library, trial_finish(trials[i]));
}

/* The kernel may still list a thread that was joined. */
static int is_back_to(const char *path, int count)
{
    for (int tries = 0; tries < 5000; tries++) {
        if (count_entries(path) <= count)
            return 1;
        usleep(1000);
    }
    return 0;
}

int main(int argc, char **argv)
{
    int fd_count = count_entries("/proc/self/fd");
    int thread_count = count_entries("/proc/self/task");
    struct given given[LIBRARIES_MAX];
    int count = argc - 3;

    if (count < 1 || count > LIBRARIES_MAX)
        return 2;
    for (int i = 0; i < count; i++)
        given[i] = split(argv[i + 3]);
    for (char *scenario = strtok(argv[1], ","); scenario != NULL;
         scenario = strtok(NULL, ",")) {
        run(count, given, scenario, argv[2]);
        printf("{\"left\": [%s%s]}\n",
               is_back_to("/proc/self/fd", fd_count) ? "" : "\"descriptors\"",
               is_back_to("/proc/self/task", thread_count) ? "" : "\"threads\"");
    }
    return 0;
}
