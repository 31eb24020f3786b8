/* sys_afd.c: see sys_afd.h.
 *
 * Winsock itself talks to AFD by NtDeviceIoControlFile. The number and the structure of
 * a poll are the same since Windows XP, though no header of Windows has them. */
#if defined(_WIN32)

#include "sys_afd.h"

#include <errno.h>
#include <mswsock.h>
#include <stddef.h>
#include <string.h>
#include <winternl.h>

#include "testing.h"

#define IOCTL_AFD_POLL 0x00012024UL
#define STATUS_PENDING_ ((NTSTATUS)0x00000103L)
#define STATUS_INVALID_HANDLE_ ((NTSTATUS)0xC0000008L)
#define STATUS_NO_MEMORY_ ((NTSTATUS)0xC0000017L)
#define STATUS_OBJECT_TYPE_MISMATCH_ ((NTSTATUS)0xC0000024L)
#define STATUS_INSUFFICIENT_RESOURCES_ ((NTSTATUS)0xC000009AL)
/* A port lets no more of the threads that it has woken run at a time. One is enough for
 * a loop; but the thread that tells a host waits while the host runs, without more. */
#define RUNNING_MAX 16
/* The keys of results that are not polls, which have the key 0. */
#define KEY_RING 1
#define KEY_TIMER 2
/* CREATE_WAITABLE_TIMER_HIGH_RESOLUTION, since Windows 10 1803. */
#define TIMER_HIGH_RESOLUTION 0x2UL

_Static_assert(sizeof(((struct fdmux__afd_poll *)0)->io_status) ==
                   sizeof(IO_STATUS_BLOCK),
               "io_status is laid out as IO_STATUS_BLOCK");

typedef NTSTATUS(NTAPI *cancel_fn)(HANDLE, IO_STATUS_BLOCK *, IO_STATUS_BLOCK *);
typedef NTSTATUS(NTAPI *control_fn)(HANDLE, HANDLE, PIO_APC_ROUTINE, void *,
                                    IO_STATUS_BLOCK *, ULONG, void *, ULONG, void *,
                                    ULONG);
typedef NTSTATUS(NTAPI *create_fn)(HANDLE *, ACCESS_MASK, OBJECT_ATTRIBUTES *,
                                   IO_STATUS_BLOCK *, LARGE_INTEGER *, ULONG, ULONG,
                                   ULONG, ULONG, void *, ULONG);

static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
static cancel_fn nt_cancel;
static control_fn nt_control;
static create_fn nt_create;

static FARPROC find(HMODULE module, const char *name)
{
    return module == NULL ? NULL : GetProcAddress(module, name);
}

static BOOL CALLBACK load(INIT_ONCE *which, void *parameter, void **ret_context)
{
    HMODULE ntdll = GetModuleHandleW(L"ntdll.dll");

    (void)which, (void)parameter, (void)ret_context;
    nt_cancel = (cancel_fn)(void (*)(void))find(ntdll, "NtCancelIoFileEx");
    nt_control = (control_fn)(void (*)(void))find(ntdll, "NtDeviceIoControlFile");
    nt_create = (create_fn)(void (*)(void))find(ntdll, "NtCreateFile");
    return TRUE;
}

static bool is_loaded(void)
{
    (void)InitOnceExecuteOnce(&once, load, NULL, NULL); /* `load` cannot fail */
    return nt_cancel != NULL && nt_control != NULL && nt_create != NULL;
}

static int error_from(DWORD error)
{
    switch (error) {
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_NO_SYSTEM_RESOURCES:
    case ERROR_COMMITMENT_LIMIT:
        return -ENOMEM;
    case ERROR_TOO_MANY_OPEN_FILES:
        return -EMFILE;
    case ERROR_ACCESS_DENIED:
        return -EPERM;
    case ERROR_INVALID_HANDLE:
        return -EBADF;
    default:
        return -EIO;
    }
}

/* ---- handles --------------------------------------------------------------------- */

static int open_device(struct fdmux__afd *afd)
{
    static wchar_t path[] = L"\\Device\\Afd\\fdmux"; /* the last part may be anything */
    UNICODE_STRING name = {.Length = sizeof path - sizeof path[0],
                           .MaximumLength = sizeof path,
                           .Buffer = path};
    OBJECT_ATTRIBUTES attributes = {.Length = sizeof attributes, .ObjectName = &name};
    IO_STATUS_BLOCK status;
    int r = fdmux__fault(FDMUX_CALL_AFD_OPEN);

    if (r != 0)
        return r;
    if (nt_create(&afd->device, SYNCHRONIZE, &attributes, &status, NULL, 0,
                  FILE_SHARE_READ | FILE_SHARE_WRITE, FILE_OPEN, 0, NULL, 0) < 0) {
        afd->device = NULL;
        return -ENOSYS; /* a sandbox may forbid it */
    }
    if (CreateIoCompletionPort(afd->device, afd->port, 0, 0) == NULL)
        return error_from(GetLastError());
    /* The handle itself need not be signalled as well. */
    (void)SetFileCompletionNotificationModes(afd->device,
                                             FILE_SKIP_SET_EVENT_ON_HANDLE);
    return 0;
}

static int open_timer(struct fdmux__afd *afd)
{
    int r = fdmux__fault(FDMUX_CALL_AFD_OPEN);

    if (r != 0)
        return r;
    afd->timer = CreateWaitableTimerExW(NULL, NULL, TIMER_HIGH_RESOLUTION,
                                        TIMER_MODIFY_STATE | SYNCHRONIZE);
    if (afd->timer == NULL)
        afd->timer =
            CreateWaitableTimerExW(NULL, NULL, 0, TIMER_MODIFY_STATE | SYNCHRONIZE);
    return afd->timer == NULL ? error_from(GetLastError()) : 0;
}

int fdmux__sys_afd_open(struct fdmux__afd *afd)
{
    int r = fdmux__fault(FDMUX_CALL_AFD_OPEN);

    if (r != 0)
        return r;
    if (!is_loaded())
        return -ENOSYS;
    afd->port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, RUNNING_MAX);
    if (afd->port == NULL)
        return error_from(GetLastError());
    r = open_device(afd);
    return r == 0 ? open_timer(afd) : r;
}

static void close_handle(HANDLE *handle)
{
    if (*handle != NULL)
        (void)CloseHandle(*handle);
    *handle = NULL;
}

void fdmux__sys_afd_close(struct fdmux__afd *afd)
{
    /* Waits until `post_timer` has returned, if it runs now. */
    if (afd->timer_wait != NULL)
        (void)UnregisterWaitEx(afd->timer_wait, INVALID_HANDLE_VALUE);
    afd->timer_wait = NULL;
    close_handle(&afd->device);
    close_handle(&afd->timer);
    close_handle(&afd->port);
}

/* ---- polls ----------------------------------------------------------------------- */

int fdmux__sys_afd_socket(fdmux_fd fd, HANDLE *ret_socket)
{
    SOCKET base = INVALID_SOCKET;
    DWORD size;
    DWORD flags;

    if (fdmux__sys_check_fd(fd) == 0 && /* wine does not check it below */
        WSAIoctl(fd, SIO_BASE_HANDLE, NULL, 0, &base, sizeof base, &size, NULL, NULL) ==
            0) {
        *ret_socket = (HANDLE)base;
        return 0;
    }
    return GetHandleInformation((HANDLE)fd, &flags) ? -ENOTSOCK : -EBADF;
}

int fdmux__sys_afd_begin(const struct fdmux__afd *afd, struct fdmux__afd_poll *poll,
                         HANDLE socket, uint32_t events)
{
    int r = fdmux__fault(FDMUX_CALL_AFD_POLL);
    NTSTATUS status;

    if (r != 0)
        return r;
    memset(&poll->info, 0, sizeof poll->info);
    poll->info.timeout.QuadPart = INT64_MAX;
    poll->info.count = 1;
    poll->info.sockets[0].socket = socket;
    poll->info.sockets[0].events = events;
    poll->io_status.result.status = STATUS_PENDING_;
    status = nt_control(afd->device, NULL, NULL, poll, (void *)&poll->io_status,
                        IOCTL_AFD_POLL, &poll->info, sizeof poll->info, &poll->info,
                        sizeof poll->info);
    switch (status) {
    case STATUS_INVALID_HANDLE_:
    case STATUS_OBJECT_TYPE_MISMATCH_: /* the number means no socket now */
        return -EBADF;
    case STATUS_NO_MEMORY_:
    case STATUS_INSUFFICIENT_RESOURCES_:
        return -ENOMEM;
    default:
        return status >= 0 ? 0 : -EIO; /* STATUS_SUCCESS or STATUS_PENDING */
    }
}

/* Fails only if the poll is over, and then the port has it already. */
void fdmux__sys_afd_cancel(const struct fdmux__afd *afd, struct fdmux__afd_poll *poll)
{
    IO_STATUS_BLOCK status;

    (void)nt_cancel(afd->device, (void *)&poll->io_status, &status);
}

static uint32_t events_of(const struct fdmux__afd_poll *poll)
{
    if (poll->io_status.result.status < 0 || poll->info.count == 0)
        return 0;
    return poll->info.sockets[0].events;
}

bool fdmux__sys_afd_is_closed(const struct fdmux__afd_poll *poll)
{
    const volatile struct fdmux__afd_poll *now = poll; /* the kernel writes to it */

    return now->io_status.result.status != STATUS_PENDING_ &&
           (events_of(poll) & FDMUX__AFD_LOCAL_CLOSE) != 0;
}

int fdmux__sys_afd_take(const struct fdmux__afd *afd, struct fdmux__afd_result *results,
                        int capacity, bool is_waiting)
{
    OVERLAPPED_ENTRY entries[FDMUX__AFD_RESULTS_MAX];
    ULONG count = 0;
    ULONG room =
        capacity > FDMUX__AFD_RESULTS_MAX ? FDMUX__AFD_RESULTS_MAX : (ULONG)capacity;
    int r = fdmux__fault(FDMUX_CALL_WAIT);

    if (r != 0)
        return r;
    if (!GetQueuedCompletionStatusEx(afd->port, entries, room, &count,
                                     is_waiting ? INFINITE : 0, FALSE))
        return GetLastError() == WAIT_TIMEOUT ? 0 : error_from(GetLastError());
    for (ULONG i = 0; i < count; i++) {
        struct fdmux__afd_poll *poll = (void *)entries[i].lpOverlapped;

        results[i].kind = poll != NULL                             ? FDMUX__AFD_POLL
                          : entries[i].lpCompletionKey == KEY_RING ? FDMUX__AFD_RING
                                                                   : FDMUX__AFD_TIMER;
        results[i].poll = poll;
        results[i].events = poll == NULL ? 0 : events_of(poll);
    }
    return (int)count;
}

struct fdmux__afd_poll *fdmux__sys_afd_await(const struct fdmux__afd *afd)
{
    OVERLAPPED_ENTRY entry;
    ULONG count;

    do {
        entry.lpOverlapped = NULL; /* a ring has none either */
        (void)GetQueuedCompletionStatusEx(afd->port, &entry, 1, &count, INFINITE,
                                          FALSE);
    } while (entry.lpOverlapped == NULL);
    return (void *)entry.lpOverlapped;
}

int fdmux__sys_afd_ring(const struct fdmux__afd *afd)
{
    DWORD error_before = GetLastError();
    int fault = fdmux__fault(FDMUX_CALL_WRITE);
    int r = fault;

    if (r == 0 && !PostQueuedCompletionStatus(afd->port, 0, KEY_RING, NULL))
        r = error_from(GetLastError());
    SetLastError(error_before);
    return r;
}

/* ---- the timer ------------------------------------------------------------------- */

/* Runs on a thread of the system, which waits for the timers of all loops. */
static VOID CALLBACK post_timer(void *port, BOOLEAN is_timeout)
{
    (void)is_timeout; /* there is none */
    /* Fails for want of memory only; the next deadline wakes the loop then. */
    (void)PostQueuedCompletionStatus(port, 0, KEY_TIMER, NULL);
}

/* The timer is reset when this wait ends, so it can be waited for again. */
static int register_timer(struct fdmux__afd *afd)
{
    int r = fdmux__fault(FDMUX_CALL_AFD_OPEN);

    if (r != 0 || afd->timer_wait != NULL)
        return r;
    if (RegisterWaitForSingleObject(&afd->timer_wait, afd->timer, post_timer, afd->port,
                                    INFINITE, WT_EXECUTEINWAITTHREAD))
        return 0;
    afd->timer_wait = NULL;
    return error_from(GetLastError());
}

int fdmux__sys_afd_set_timer(struct fdmux__afd *afd, int64_t deadline_ns)
{
    int64_t left_ns = deadline_ns - fdmux__sys_now();
    LARGE_INTEGER due = {.QuadPart = left_ns <= 0 ? 0 : -((left_ns + 99) / 100)};
    int r = afd->timer_wait == NULL ? register_timer(afd) : 0;

    if (r < 0)
        return r;
    if (deadline_ns == INT64_MAX)
        return CancelWaitableTimer(afd->timer) ? 0 : error_from(GetLastError());
    /* A negative time is relative; 0 is a time in 1601. */
    return SetWaitableTimer(afd->timer, &due, 0, NULL, NULL, FALSE)
               ? 0
               : error_from(GetLastError());
}

#endif
