/* sys_afd_host.c: a completion port that a foreign loop can wait for (sys_afd_host.h).
 *
 * Nothing that Windows documents can wait for a port and for something else. So a
 * thread waits for the port, keeps what it returns, and sets an event. It goes on when
 * the loop has taken all of it. It takes no lock, and calls nothing of the loop. */
#if defined(_WIN32)

#include "sys_afd_host.h"

#include <errno.h>

#include "testing.h"

/* Wait for the port once. Returns false to end. */
static bool fetch(struct fdmux__afd_host *host)
{
    int r = fdmux__sys_afd_take(host->afd, host->results, FDMUX__AFD_RESULTS_MAX, true);

    atomic_store(&host->count, r);
    (void)SetEvent(host->event);
    if (!atomic_load(&host->is_ending))
        (void)WaitForSingleObject(host->resume, INFINITE);
    return !atomic_load(&host->is_ending);
}

static void run_host(void *userdata)
{
    while (fetch(userdata))
        continue;
}

static int open_event(HANDLE *ret_event, bool is_kept)
{
    int r = fdmux__fault(FDMUX_CALL_AFD_OPEN);

    if (r != 0)
        return r;
    *ret_event = CreateEventW(NULL, is_kept, FALSE, NULL);
    return *ret_event == NULL ? -ENOMEM : 0;
}

static void close_events(struct fdmux__afd_host *host)
{
    if (host->resume != NULL)
        (void)CloseHandle(host->resume);
    if (host->event != NULL)
        (void)CloseHandle(host->event);
    host->resume = host->event = NULL;
}

int fdmux__sys_afd_host_open(struct fdmux__afd_host *host, const struct fdmux__afd *afd)
{
    int r = open_event(&host->event, true);

    if (r == 0)
        r = open_event(&host->resume, false);
    host->afd = afd;
    if (r < 0)
        close_events(host);
    return r;
}

int fdmux__sys_afd_host_start(struct fdmux__afd_host *host)
{
    int r = fdmux__fault(FDMUX_CALL_AFD_OPEN);

    if (r == 0)
        r = fdmux__sys_thread_start(&host->thread, run_host, host);
    host->is_running = r == 0;
    return r;
}

void fdmux__sys_afd_host_stop(struct fdmux__afd_host *host)
{
    if (!host->is_running)
        return;
    atomic_store(&host->is_ending, true);
    /* One of these ends its wait. A ring fails for want of memory only. */
    (void)SetEvent(host->resume);
    while (fdmux__sys_afd_ring(host->afd) < 0)
        Sleep(1);
    fdmux__sys_thread_join(&host->thread);
}

void fdmux__sys_afd_host_close(struct fdmux__afd_host *host)
{
    close_events(host);
}

void fdmux__sys_afd_host_signal(const struct fdmux__afd_host *host)
{
    DWORD error_before = GetLastError();

    (void)SetEvent(host->event);
    SetLastError(error_before);
}

/* The thread stores the count before it sets the event, so the event is cleared before
 * the count is read. */
int fdmux__sys_afd_host_take(struct fdmux__afd_host *host,
                             struct fdmux__afd_result *results, int capacity,
                             bool is_waiting)
{
    int count;
    int taken = 0;

    if (is_waiting)
        (void)WaitForSingleObject(host->event, INFINITE);
    (void)ResetEvent(host->event);
    count = atomic_load(&host->count);
    while (taken < capacity && host->next < count)
        results[taken++] = host->results[host->next++];
    if (host->next < count) {
        (void)SetEvent(host->event);
    } else if (count != 0) {
        host->next = 0;
        atomic_store(&host->count, 0);
        (void)SetEvent(host->resume);
    }
    return count < 0 ? count : taken;
}

#else
typedef int fdmux__no_afd_host; /* ISO C forbids an empty file */
#endif
