/* trial.c: the scenarios, the same for every library.
 *
 * A trial is driven by what its client reports and by timers of the loop alone, so it
 * runs in every host. It verifies each answer, and that nothing is reported twice or
 * after the end. */
#include "trial.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#ifdef FDMUX_TESTING
/* Of csrc/platform/testing.h, which the core of the plain C program has. */
void fdmux_testing_fail(uint32_t kinds, int64_t nth, int error, int persistent);
int64_t fdmux_testing_calls(void);
#define ANY_CALL 0x7fff
#endif

#define REQUEST_COUNT 1000
#define OUTSIDE_COUNT 20     /* requests outside of the loop's functions */
#define WINDOW 50            /* requests in flight */
#define KILL_AT 300          /* verified requests before the server is killed */
#define LIMIT_MS 40000      /* for one scenario */
#define QUIET_MS 30          /* after a close, in which nothing may be reported */
#define RETRY_MS 20          /* before a client that was lost is opened again */
#define MS INT64_C(1000000)

enum number_state { WAITING, ASKED, VERIFIED };

enum server_state { RUNS, KILLING, IS_DEAD, STARTING, RUNS_AGAIN };

struct trial_state {
    struct trial trial;
    const struct library *library;
    const char *scenario;
    void *client; /* NULL while there is none */
    int control_fd;
    uint64_t control, timer, limit;
    void (*on_timer)(struct trial_state *);
    void (*ended)(void *userdata);
    void *userdata;
    int is_over, is_lost, is_closing, is_ready, round;
    enum server_state server;
    int wanted, in_flight;
    int64_t asked_at_ns;
    unsigned char numbers[REQUEST_COUNT];
    struct trial_report report;
};

static struct trial_state *state_of(struct trial *trial)
{
    return trial->state;
}

static int is_scenario(const struct trial_state *state, const char *name)
{
    return strcmp(state->scenario, name) == 0;
}

/* Does the host close the loop while the client is open? */
static int is_left_open(const struct trial_state *state)
{
    return is_scenario(state, "close of the loop") ||
           is_scenario(state, "announced close");
}

static void later(struct trial_state *state, int delay_ms,
                  void (*on_timer)(struct trial_state *))
{
    state->on_timer = on_timer;
    fdmux_timer_arm_in(state->trial.loop, state->timer, delay_ms * MS, 0);
}

/* ---- ends ---------------------------------------------------------------------- */

static void end(struct trial_state *state)
{
    if (state->is_over)
        return;
    state->is_over = 1;
    fdmux_timer_remove(state->trial.loop, state->timer);
    fdmux_timer_remove(state->trial.loop, state->limit);
    fdmux_io_remove(state->trial.loop, state->control);
    state->ended(state->userdata);
}

static void fail(struct trial_state *state, const char *what, int value)
{
    struct trial_report *report = &state->report;

    if (report->error[0] == '\0')
        snprintf(report->error, sizeof report->error, "%s: %d", what, value);
    end(state);
}

/* What was asked over a connection that is gone is to be asked again. */
static void forget_asked(struct trial_state *state)
{
    state->in_flight = 0;
    for (int number = 0; number < REQUEST_COUNT; number++)
        if (state->numbers[number] == ASKED)
            state->numbers[number] = WAITING;
}

static void close_client(struct trial_state *state)
{
    void *client = state->client;

    state->client = NULL;
    forget_asked(state);
    if (client == NULL)
        return;
    state->is_closing = 1;
    state->library->close(client);
    state->is_closing = 0;
}

static void close_and_end(struct trial_state *state)
{
    close_client(state);
    later(state, QUIET_MS, end);
}

static void open_client(struct trial_state *state)
{
    void *client = NULL;
    int r;

    state->is_lost = 0;
    if (state->client != NULL && state->library->reopen != NULL) {
        forget_asked(state);
        r = state->library->reopen(state->client);
    } else {
        close_client(state);
        r = state->library->open(&state->trial, &client);
        state->client = client;
    }
    if (r < 0)
        fail(state, "open", r);
}

/* ---- requests ------------------------------------------------------------------ */

static void tell_control(struct trial_state *state, char letter)
{
    if (write(state->control_fd, &letter, 1) != 1)
        fail(state, "control", errno);
}

static int is_noticed(const struct trial_state *state)
{
    return state->is_lost || state->report.failed_count > 0;
}

/* The server is dead, and the client has noticed: start it again. */
static void start_server_if_noticed(struct trial_state *state)
{
    if (state->server != IS_DEAD || !is_noticed(state))
        return;
    state->server = STARTING;
    tell_control(state, 's');
}

/* A library may know that its connection is gone before it has said so. */
static void on_refused(struct trial_state *state, int number, int error)
{
    state->numbers[number] = WAITING;
    state->in_flight--;
    state->report.failed_count++;
    if (!is_scenario(state, "reconnect"))
        fail(state, "request", error);
    else
        start_server_if_noticed(state);
}

/* Ask for what is missing, as far as the window and the scenario allow. */
static void fill(struct trial_state *state)
{
    for (int number = 0; number < state->wanted; number++) {
        int r;

        if (state->is_over || state->is_lost || state->client == NULL ||
            state->in_flight >= WINDOW || state->server == STARTING)
            return;
        if (state->numbers[number] != WAITING)
            continue;
        state->numbers[number] = ASKED;
        state->in_flight++;
        r = state->library->request(state->client, number);
        if (r < 0) {
            on_refused(state, number, r);
            return;
        }
    }
}

static int on_control(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                      void *userdata)
{
    struct trial_state *state = (struct trial_state *)userdata;
    char letter;

    (void)loop, (void)io, (void)events;
    if (read(state->control_fd, &letter, 1) != 1) {
        fail(state, "control", errno);
    } else if (letter == 'k') {
        state->server = IS_DEAD;
        state->wanted = REQUEST_COUNT;
        start_server_if_noticed(state);
        fill(state); /* so that a client without a connection notices too */
    } else {
        state->server = RUNS_AGAIN;
        if (state->is_lost)
            open_client(state);
        else
            fill(state);
    }
    return 0;
}

static void on_all_verified(struct trial_state *state)
{
    if (is_scenario(state, "reconnect") && state->server != RUNS_AGAIN)
        return;
    later(state, 0, close_and_end);
}

/* ---- the scenarios ------------------------------------------------------------- */

/* Round 0: closed inside a callback. Round 1: closed with requests in flight, outside.
 * Round 2: closed while it connects. */
static void on_destroy_round_over(struct trial_state *state);

static void close_outside(struct trial_state *state)
{
    close_client(state);
    later(state, QUIET_MS, on_destroy_round_over);
}

static void close_in_flight(struct trial_state *state)
{
    fill(state);
    close_outside(state);
}

static void on_destroy_round_over(struct trial_state *state)
{
    state->round++;
    if (state->round == 3) {
        end(state);
        return;
    }
    memset(state->numbers, WAITING, sizeof state->numbers);
    open_client(state);
    if (state->round == 2 && !state->is_over)
        close_outside(state);
}

static void on_close(struct fdmux_loop *loop, void *userdata)
{
    (void)loop;
    close_client((struct trial_state *)userdata);
}

/* The host closes the loop after this, with the client open and its requests asked. The
 * client is closed after that, or while the loop announces its end. */
static void leave_open(struct trial_state *state)
{
    uint64_t hook;

    if (is_scenario(state, "announced close") &&
        fdmux_loop_at_close(state->trial.loop, on_close, state, &hook) < 0)
        fail(state, "at_close", 0);
    fill(state);
    end(state);
}

/* ---- what the client reports --------------------------------------------------- */

static void begin_timeout(struct trial_state *state)
{
    int r;

    state->asked_at_ns = fdmux_loop_now(state->trial.loop);
    r = state->library->begin_timeout(state->client);
    if (r < 0)
        fail(state, "begin_timeout", r);
}

/* A client may report within `open`, so nothing begins before that has returned. */
void trial_ready(struct trial *trial)
{
    struct trial_state *state = state_of(trial);

    if (state->is_over || state->is_closing)
        return;
    state->is_ready = 1;
    if (is_scenario(state, "outside"))
        return; /* trial_ask begins */
    if (is_scenario(state, "timeout"))
        later(state, 0, begin_timeout);
    else if (is_left_open(state))
        later(state, 0, leave_open);
    else if (is_scenario(state, "destroy") && state->round == 1)
        later(state, 0, close_in_flight);
    else if (state->round != 2)
        later(state, 0, fill);
}

static void retry(struct trial_state *state)
{
    if (state->is_lost)
        open_client(state);
    else
        fill(state);
}

void trial_lost(struct trial *trial)
{
    struct trial_state *state = state_of(trial);

    if (state->is_over || state->is_closing || state->is_lost)
        return;
    state->is_lost = 1;
    state->report.lost_count++;
    if (!is_scenario(state, "reconnect") && !is_scenario(state, "timeout"))
        fail(state, "lost the connection", state->report.verified_count);
    else if (state->server == RUNS_AGAIN)
        later(state, RETRY_MS, retry);
    else
        start_server_if_noticed(state);
    if (state->library->reopen == NULL)
        close_client(state); /* inside a callback of the library */
}

void trial_answer(struct trial *trial, int number, int is_right)
{
    struct trial_state *state = state_of(trial);

    if (state->is_over && !is_left_open(state))
        return;
    if (state->client == NULL || !is_right || number < 0 || number >= REQUEST_COUNT ||
        state->numbers[number] != ASKED) {
        fail(state, state->client == NULL ? "answer after the close" : "wrong answer",
             number);
        return;
    }
    state->numbers[number] = VERIFIED;
    state->in_flight--;
    state->report.verified_count++;
    if (is_scenario(state, "destroy")) {
        close_client(state); /* inside the callback, with the others in flight */
        later(state, QUIET_MS, on_destroy_round_over);
        return;
    }
    if (is_left_open(state) || is_scenario(state, "outside"))
        return;
    if (is_scenario(state, "reconnect") && state->server == RUNS &&
        state->report.verified_count == KILL_AT) {
        state->server = KILLING;
        tell_control(state, 'k');
    }
    if (state->report.verified_count == REQUEST_COUNT)
        on_all_verified(state);
    else
        fill(state);
}

void trial_failed(struct trial *trial, int number)
{
    struct trial_state *state = state_of(trial);

    if (state->is_over || state->client == NULL || state->is_closing ||
        state->numbers[number] != ASKED)
        return; /* closed, or counted as lost already */
    state->numbers[number] = WAITING;
    state->in_flight--;
    state->report.failed_count++;
    if (!is_scenario(state, "reconnect"))
        fail(state, "request failed", number);
    start_server_if_noticed(state);
    if (state->server == RUNS_AGAIN && !state->is_lost)
        later(state, RETRY_MS, retry);
}

void trial_timed_out(struct trial *trial)
{
    struct trial_state *state = state_of(trial);
    int64_t took_ns = fdmux_loop_now(trial->loop) - state->asked_at_ns;
    int took_ms = (int)(took_ns / MS);

    if (state->is_over)
        return;
    if (took_ms + 1 < state->library->timeout_ms) /* libraries round to 1 ms */
        fail(state, "timed out early, after ms", took_ms);
    else if (took_ms > state->library->timeout_ms + 2000)
        fail(state, "timed out late, after ms", took_ms);
    else
        later(state, 0, close_and_end);
}

/* ---- failing calls ------------------------------------------------------------- */

static int calloc_left = -1; /* until one fails; -1: none does */

void *driver_calloc(size_t count, size_t size)
{
    if (calloc_left >= 0 && calloc_left-- == 0)
        return NULL;
    return (calloc)(count, size);
}

#ifdef FDMUX_TESTING

struct fault {
    void (*set)(int nth); /* 0: none */
    int (*is_reached)(int nth);
};

static void set_calloc(int nth)
{
    calloc_left = nth - 1;
}

static int is_calloc_reached(int nth)
{
    (void)nth;
    return calloc_left < 0;
}

static void set_core(int nth)
{
    fdmux_testing_fail(ANY_CALL, nth, ENOMEM, 0);
}

static int is_core_reached(int nth)
{
    return fdmux_testing_calls() >= nth;
}

/* Open and close a client in a loop of its own. Returns whether a call has failed. */
static int try_client(struct trial_state *state, const struct fault *fault, int nth)
{
    struct trial trial = state->trial;
    void *client = NULL;
    int is_reached, r;

    if (fdmux_loop_create(NULL, &trial.loop) < 0)
        return 0;
    fault->set(nth);
    r = state->library->open(&trial, &client);
    is_reached = fault->is_reached(nth);
    fault->set(0);
    if (client != NULL)
        state->library->close(client);
    trial.loop = fdmux_loop_destroy(trial.loop);
    state->report.failed_count += r < 0;
    return is_reached;
}

/* Let the first, the second and each further call fail, until none is reached. */
static void open_with_failing_calls(struct trial_state *state)
{
    static const struct fault faults[] = {{set_calloc, is_calloc_reached},
                                          {set_core, is_core_reached}};

    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        for (int nth = 1; try_client(state, &faults[i], nth);)
            nth++;
    if (state->report.failed_count < 3) /* two callocs, and a watcher at least */
        fail(state, "failing calls", state->report.failed_count);
    end(state);
}

#endif

/* ---- from the beginning to the end ---------------------------------------------- */

static void begin(struct trial_state *state)
{
    if (is_scenario(state, "requests") || is_scenario(state, "destroy"))
        state->wanted = REQUEST_COUNT;
    if (is_scenario(state, "reconnect"))
        state->wanted = KILL_AT + 2 * WINDOW; /* leave some for later */
    if (is_left_open(state))
        state->wanted = WINDOW;
#ifdef FDMUX_TESTING
    if (is_scenario(state, "failing calls")) {
        open_with_failing_calls(state);
        return;
    }
#endif
    open_client(state);
}

static int on_timer(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct trial_state *state = (struct trial_state *)userdata;

    (void)loop, (void)timer;
    state->on_timer(state);
    return 0;
}

static int on_limit(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct trial_state *state = (struct trial_state *)userdata;

    (void)loop, (void)timer;
    fail(state, "stuck; verified", state->report.verified_count);
    return 0;
}

static int register_trial(struct trial_state *state)
{
    struct fdmux_loop *loop = state->trial.loop;
    struct fdmux_timer_options timer = {.struct_size = sizeof timer};
    struct fdmux_io_options io = {.struct_size = sizeof io};
    int r;

    timer.userdata = io.userdata = state;
    timer.fn = on_timer;
    r = fdmux_timer_add(loop, &timer, &state->timer);
    timer.fn = on_limit;
    if (r == 0)
        r = fdmux_timer_add(loop, &timer, &state->limit);
    io.fd = state->control_fd;
    io.events = FDMUX_READ;
    io.fn = on_control;
    if (r == 0)
        r = fdmux_io_add(loop, &io, &state->control);
    if (r == 0)
        r = fdmux_timer_arm_in(loop, state->limit, LIMIT_MS * MS, 0);
    return r;
}

struct trial *trial_begin(struct fdmux_loop *loop, const struct library *library,
                          const char *scenario, const char *address, const char *silent,
                          int control_fd, void (*ended)(void *userdata), void *userdata)
{
    struct trial_state *state = (struct trial_state *)calloc(1, sizeof *state);

    if (state == NULL)
        return NULL;
    state->trial.loop = loop;
    state->trial.address = address;
    state->trial.silent = silent;
    state->trial.silent_port = atoi(strchr(silent, ':') + 1);
    state->trial.state = state;
    state->library = library;
    state->scenario = scenario;
    state->control_fd = control_fd;
    state->ended = ended;
    state->userdata = userdata;
    if (register_trial(state) < 0) {
        free(state);
        return NULL;
    }
    later(state, 0, begin);
    return &state->trial;
}

int trial_ask(struct trial *trial)
{
    struct trial_state *state = state_of(trial);

    if (state->is_over || !is_scenario(state, "outside"))
        return 0;
    if (!state->is_ready || state->in_flight > 0)
        return 1;
    if (state->report.verified_count == OUTSIDE_COUNT) {
        close_client(state);
        end(state);
        return 0;
    }
    state->wanted = state->report.verified_count + 1;
    fill(state);
    if (state->library->needs_wake)
        (void)fdmux_loop_wake(state->trial.loop);
    return 1;
}

struct trial_report trial_finish(struct trial *trial)
{
    struct trial_state *state = state_of(trial);
    struct trial_report report;

    if (is_scenario(state, "announced close") && state->client != NULL)
        fail(state, "the end was not announced", 0);
    close_client(state); /* after the loop */
    if (!state->is_over)
        fail(state, "not over", state->report.verified_count);
    if (*state->library->live_count != 0)
        fail(state, "clients left", *state->library->live_count);
    report = state->report;
    free(state);
    return report;
}
