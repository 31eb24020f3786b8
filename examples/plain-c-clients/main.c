/* main.c: Redis, HTTP, DNS and PostgreSQL in one loop, in plain C.
 *
 *     clients REDIS HTTP DNS POSTGRESQL      addresses, see clients.h
 *
 * Asks each server COUNT questions, IN_FLIGHT at a time, and verifies each answer.
 * Prints a line for each, and ends with 0 if all were right. */
#include "clients.h"

#include <sys/select.h> /* ares.h uses fd_set */

#include <ares.h>
#include <curl/curl.h>

enum { COUNT = 1000, IN_FLIGHT = 20, TIMEOUT_S = 30 };

struct program;

struct work {
    struct program *program;
    const struct client_kind *kind;
    void *client;
    /* Write question `number`, and its answer. */
    void (*write)(int number, char *question, char *answer);
    int asked, answered;
    const char *error; /* the first one; the answers are not counted after it */
};

struct question {
    struct work *work;
    char answer[32];
};

struct program {
    struct fdmux_loop *loop;
    struct work works[4];
    int left_count;
    int is_late;
};

enum { QUESTION_SIZE = 64 };

static void write_redis(int number, char *question, char *answer)
{
    (void)snprintf(question, QUESTION_SIZE, "ECHO %d", number);
    (void)snprintf(answer, 32, "%d", number);
}

static void write_http(int number, char *question, char *answer)
{
    (void)snprintf(question, QUESTION_SIZE, "/n/%d", number);
    (void)snprintf(answer, 32, "%d", number);
}

static void write_dns(int number, char *question, char *answer)
{
    (void)snprintf(question, QUESTION_SIZE, "n%d.test", number);
    (void)snprintf(answer, 32, "10.0.%d.%d", number / 256, number % 256);
}

static void write_postgresql(int number, char *question, char *answer)
{
    (void)snprintf(question, QUESTION_SIZE, "SELECT 7 * %d", number);
    (void)snprintf(answer, 32, "%d", 7 * number);
}

static void ask_next(struct work *work);

static void end_work(struct work *work, const char *error)
{
    work->error = error;
    if (--work->program->left_count == 0)
        (void)fdmux_loop_stop(work->program->loop); /* it is alive */
}

static void on_answer(void *userdata, const char *text, const char *error)
{
    struct question *question = (struct question *)userdata;
    struct work *work = question->work;
    int is_right = text != NULL && strcmp(text, question->answer) == 0;

    if (work->error == NULL && error != NULL)
        (void)fprintf(stderr, "%s: %s\n", work->kind->name, error);
    free(question);
    if (work->error != NULL)
        return;
    if (!is_right) {
        end_work(work, "WRONG");
    } else if (++work->answered == COUNT) {
        end_work(work, "all right");
    } else if (work->asked < COUNT) {
        ask_next(work);
    }
}

static void ask_next(struct work *work)
{
    struct question *question = (struct question *)malloc(sizeof *question);
    char text[QUESTION_SIZE];
    int r;

    if (question == NULL) {
        end_work(work, "no memory");
        return;
    }
    question->work = work;
    work->write(work->asked++, text, question->answer);
    r = work->kind->ask(work->client, text, (struct asker){on_answer, question});
    if (r < 0) {
        free(question);
        end_work(work, strerror(-r));
    }
}

static int on_timeout(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    (void)timer;
    ((struct program *)userdata)->is_late = 1;
    return fdmux_loop_stop(loop);
}

static int arm_timeout(struct program *program)
{
    struct fdmux_timer_options options = {.struct_size = sizeof options};
    uint64_t timer;
    int r;

    options.fn = on_timeout;
    options.userdata = program;
    r = fdmux_timer_add(program->loop, &options, &timer);
    return r < 0 ? r
                 : fdmux_timer_arm_in(program->loop, timer,
                                      TIMEOUT_S * INT64_C(1000000000), 0);
}

static int open_all(struct program *program, char **addresses)
{
    int r = arm_timeout(program);

    for (int i = 0; i < 4 && r >= 0; i++) {
        struct work *work = &program->works[i];

        work->program = program;
        r = work->kind->open(program->loop, addresses[i], &work->client);
        if (r < 0)
            (void)fprintf(stderr, "%s at %s: %s\n", work->kind->name, addresses[i],
                          strerror(-r));
    }
    return r;
}

static int run(struct program *program)
{
    program->left_count = 4;
    for (int i = 0; i < 4; i++) {
        struct work *work = &program->works[i];

        while (work->error == NULL && work->asked < IN_FLIGHT)
            ask_next(work);
    }
    return fdmux_loop_run(program->loop);
}

/* Returns whether all were right. */
static int close_all(struct program *program)
{
    int is_right = !program->is_late;

    for (int i = 0; i < 4; i++) {
        struct work *work = &program->works[i];

        if (work->client == NULL)
            continue;
        if (work->error == NULL)
            work->error = "too late";
        is_right = is_right && work->answered == COUNT;
        printf("%s: %d answers, %s\n", work->kind->name, work->answered, work->error);
        work->kind->close(work->client);
    }
    return is_right;
}

int main(int count, char **arguments)
{
    struct program program = {
        .works = {{.kind = &redis_kind, .write = write_redis},
                  {.kind = &http_kind, .write = write_http},
                  {.kind = &dns_kind, .write = write_dns},
                  {.kind = &postgresql_kind, .write = write_postgresql}}};
    int is_right;
    int r = -EINVAL;

    if (count == 5 && curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK &&
        ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS)
        r = fdmux_loop_create(NULL, &program.loop);
    if (r == 0)
        r = open_all(&program, arguments + 1);
    if (r == 0)
        r = run(&program);
    is_right = close_all(&program);
    fdmux_loop_destroy(program.loop); /* accepts NULL */
    ares_library_cleanup();
    curl_global_cleanup();
    if (r < 0)
        (void)fprintf(stderr, "clients: %s\n", strerror(-r));
    return r < 0 || !is_right ? 1 : 0;
}
