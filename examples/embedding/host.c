/* host.c: a C program that runs a service written in Python in its loop of poll(2).
 *
 *     ./host [CYCLES]      starts and ends Python CYCLES times; default 1
 *
 * The host waits without the GIL; Python never waits. The host calls the service once
 * each time its descriptor is readable. If a Python callback raises, the host prints
 * the exception and goes on. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WAIT_MS 10000 /* a missed event fails the program instead of hanging it */

/* What the host sends, and the answer it expects; NULL: an exception. */
static const struct {
    const char *request, *answer;
} script[] = {
    {"hello", "hello"},   {"fail", NULL},         {"still there?", "still there?"},
    {"timer", "a timer"}, {"thread", "a thread"},
};

struct host {
    PyObject *service;
    struct pollfd fds[2]; /* the guest's descriptor, and the host's socket */
    int error_count;
};

/* Print and clear the Python exception. Returns -1. */
static int handle_error(struct host *host)
{
    host->error_count++;
    if (PyErr_ExceptionMatches(PyExc_SystemExit))
        PyErr_Clear(); /* PyErr_Print would end the program */
    else
        PyErr_Print();
    return -1;
}

/* Call a method of the service. Returns its number, 0 for None, -1 for an exception. */
static long call(struct host *host, const char *method)
{
    PyObject *result = PyObject_CallMethod(host->service, method, NULL);
    long number = 0;

    if (result == NULL)
        return handle_error(host);
    if (result != Py_None)
        number = PyLong_AsLong(result);
    Py_DECREF(result);
    return number;
}

/* Wait for the service or the host's socket, without the GIL. */
static int wait_for_both(struct host *host)
{
    int ready;

    Py_BEGIN_ALLOW_THREADS
    ready = poll(host->fds, 2, WAIT_MS);
    Py_END_ALLOW_THREADS
    if (ready < 0) /* EINTR: the array is out of date */
        host->fds[0].revents = host->fds[1].revents = 0;
    if (ready < 0 && PyErr_CheckSignals() < 0) /* runs signal handlers */
        (void)handle_error(host);
    return ready;
}

/* Run one iteration of the host's loop. Returns how many bytes its socket received. */
static size_t turn(struct host *host, char *buffer, size_t size)
{
    ssize_t received = 0;

    if (host->fds[0].revents != 0)
        (void)call(host, "dispatch"); /* errors are counted, and the loop goes on */
    if (host->fds[1].revents != 0)
        received = recv(host->fds[1].fd, buffer, size, 0);
    return received > 0 ? (size_t)received : 0;
}

static int converse(struct host *host, const char *request, const char *answer)
{
    char buffer[64];
    size_t size = 0;
    int errors_before = host->error_count;

    if (send(host->fds[1].fd, request, strlen(request), MSG_NOSIGNAL) < 0)
        return -1;
    while (size == 0 && host->error_count == errors_before) {
        if (wait_for_both(host) == 0)
            return -1;
        size = turn(host, buffer, sizeof buffer);
    }
    if (answer == NULL)
        return host->error_count == errors_before + 1 ? 0 : -1;
    return size == strlen(answer) && memcmp(buffer, answer, size) == 0 ? 0 : -1;
}

/* Make a Service of service.py on one end of a socket pair; the host keeps the
 * other. */
static int start(struct host *host)
{
    PyObject *module = PyImport_ImportModule("service");
    int pair[2];

    if (module == NULL)
        return handle_error(host);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        Py_DECREF(module);
        return -1;
    }
    host->service = PyObject_CallMethod(module, "Service", "i", pair[1]);
    Py_DECREF(module);
    host->fds[1] = (struct pollfd){.fd = pair[0], .events = POLLIN};
    if (host->service == NULL)
        return handle_error(host);
    host->fds[0] = (struct pollfd){.fd = (int)call(host, "fileno"), .events = POLLIN};
    return host->fds[0].fd < 0 ? -1 : 0;
}

static int run(struct host *host)
{
    int r = start(host);

    for (size_t i = 0; r == 0 && i < sizeof script / sizeof script[0]; i++)
        r = converse(host, script[i].request, script[i].answer);
    if (host->service != NULL && call(host, "close") < 0)
        r = -1;
    Py_CLEAR(host->service);
    (void)close(host->fds[1].fd);
    return r;
}

/* Start Python, run the service in this program's loop, and end Python. */
static int cycle(void)
{
    struct host host = {.fds = {{.fd = -1}, {.fd = -1}}};
    int r;

    Py_InitializeEx(0); /* 0: the host handles signals */
    r = run(&host);
    return Py_FinalizeEx() < 0 ? -1 : r;
}

int main(int count, char **arguments)
{
    long cycles = count > 1 ? strtol(arguments[1], NULL, 10) : 1;

    for (long i = 0; i < cycles; i++) {
        if (cycle() < 0) {
            (void)fprintf(stderr, "cycle %ld went wrong\n", i + 1);
            return 1;
        }
    }
    printf("%ld cycles, ok\n", cycles);
    return 0;
}
