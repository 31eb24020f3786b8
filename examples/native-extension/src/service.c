/* service.c: a socket, a timer and a thread in a loop that the service does not own.
 *
 * Copy from here how things end. The program may close the loop first, or stop the
 * service first, inside a callback, while the thread has work to do. Two rules make
 * these one case:
 *
 *   1. Everything that may still call the service has a reference: each watcher until
 *      its `destroyed`, each job until its posted call has run, and the owner.
 *   2. Only the `destroyed` of the io watcher ends the thread and closes the socket.
 *      It is called exactly once, for any kind of end. */
#define _GNU_SOURCE
#include "service.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICK_NS INT64_C(10000000)
#define DATAGRAMS_PER_CALL 16 /* then the loop's other watchers run */

struct job {
    struct service *service;
    struct job *next;
    struct sockaddr_in peer;
    size_t size;
    uint64_t hash;
    unsigned char data[SERVICE_REQUEST_MAX + 1]; /* one more, to detect a longer one */
};

struct service {
    const struct fdmux_api *api;
    struct fdmux_loop *loop;
    uint64_t io;
    uint64_t timer;
    int fd; /* used by the loop's thread; -1 once closed */
    int port;
    atomic_int references;
    atomic_bool has_ended;
    atomic_uint_least64_t requests, replies, dropped, ticks;

    pthread_t thread;
    pthread_mutex_t lock; /* guards the fields below */
    pthread_cond_t has_work;
    struct job *first;
    struct job **last;
    bool is_stopping;
};

static void hold(struct service *service)
{
    atomic_fetch_add(&service->references, 1);
}

void service_release(struct service *service)
{
    if (atomic_fetch_sub(&service->references, 1) > 1)
        return;
    (void)pthread_cond_destroy(&service->has_work); /* no thread is left to wait */
    (void)pthread_mutex_destroy(&service->lock);
    free(service);
}

/* ---- the thread ------------------------------------------------------------------ */

static uint64_t hash_of(const unsigned char *data, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static void drop(struct job *job)
{
    struct service *service = job->service;

    atomic_fetch_add(&service->dropped, 1);
    free(job);
    service_release(service);
}

/* Runs on the loop's thread, once for each job. `loop` is NULL if the loop was closed
 * before. In both cases this function frees the job and its reference. */
static int send_reply(struct fdmux_loop *loop, void *userdata)
{
    struct job *job = userdata;
    struct service *service = job->service;
    char reply[17];
    int size = snprintf(reply, sizeof reply, "%016" PRIx64, job->hash);

    if (loop == NULL || service->fd < 0) {
        drop(job);
        return 0;
    }
    /* UDP may lose a reply, so a full buffer may lose it here. */
    if (sendto(service->fd, reply, (size_t)size, 0, (struct sockaddr *)&job->peer,
               sizeof job->peer) == size)
        atomic_fetch_add(&service->replies, 1);
    free(job);
    service_release(service);
    return 0;
}

static struct job *next_job(struct service *service)
{
    struct job *job;

    pthread_mutex_lock(&service->lock);
    while (service->first == NULL && !service->is_stopping)
        pthread_cond_wait(&service->has_work, &service->lock);
    job = service->first;
    if (job != NULL)
        service->first = job->next;
    if (service->first == NULL)
        service->last = &service->first;
    pthread_mutex_unlock(&service->lock);
    return job; /* NULL: no job is left, and none will come */
}

static void *work(void *userdata)
{
    struct service *service = userdata;
    struct job *job;

    while ((job = next_job(service)) != NULL) {
        job->hash = hash_of(job->data, job->size);
        /* If the post fails (the loop is closed), the job must be handled here. */
        if (service->api->post(service->loop, send_reply, job) < 0)
            drop(job);
    }
    return NULL;
}

static void hand_over(struct service *service, struct job *job)
{
    hold(service); /* for the job */
    job->next = NULL;
    pthread_mutex_lock(&service->lock);
    *service->last = job;
    service->last = &job->next;
    pthread_cond_signal(&service->has_work);
    pthread_mutex_unlock(&service->lock);
}

/* ---- functions of the loop ------------------------------------------------------- */

/* Returns 1, or 0 when nothing is left to read, or -errno. */
static int take_datagram(struct service *service)
{
    struct job *job = malloc(sizeof *job);
    socklen_t peer_size = sizeof job->peer;
    ssize_t size;
    int r = 0;

    if (job == NULL)
        return -ENOMEM;
    job->service = service;
    size = recvfrom(service->fd, job->data, sizeof job->data, 0,
                    (struct sockaddr *)&job->peer, &peer_size);
    if (size >= 0 && size <= SERVICE_REQUEST_MAX) {
        job->size = (size_t)size;
        atomic_fetch_add(&service->requests, 1);
        hand_over(service, job);
        return 1;
    }
    if (size >= 0)
        r = -EMSGSIZE;
    else if (errno != EAGAIN && errno != EINTR)
        r = -errno;
    free(job);
    return r;
}

/* The loop's dispatch returns a negative result to the program that runs the loop;
 * Python raises it as an OSError. The watcher and everything else stay. */
static int on_readable(struct fdmux_loop *loop, uint64_t io, uint32_t events,
                       void *userdata)
{
    struct service *service = userdata;
    int r = 1;

    (void)loop;
    (void)io;
    (void)events;
    for (int i = 0; i < DATAGRAMS_PER_CALL && r > 0; i++)
        r = take_datagram(service);
    return r < 0 ? r : 0;
}

static int on_tick(struct fdmux_loop *loop, uint64_t timer, void *userdata)
{
    struct service *service = userdata;

    (void)loop;
    (void)timer;
    atomic_fetch_add(&service->ticks, 1);
    return 0;
}

/* The last call for the io watcher, after service_stop or at the end of the loop. Calls
 * that the thread still posts are either run later or refused; see send_reply. */
static void on_io_destroyed(void *userdata)
{
    struct service *service = userdata;

    pthread_mutex_lock(&service->lock);
    service->is_stopping = true;
    pthread_cond_signal(&service->has_work);
    pthread_mutex_unlock(&service->lock);
    (void)pthread_join(service->thread, NULL); /* started here, joined once */
    (void)close(service->fd); /* a datagram socket has nothing to flush */
    service->fd = -1;
    atomic_store(&service->has_ended, true);
    service_release(service);
}

static void on_timer_destroyed(void *userdata)
{
    service_release(userdata);
}

/* ---- start and stop -------------------------------------------------------------- */

/* Returns a bound socket, or -errno. */
static int open_socket(int *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&address, size) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0) {
        r = -errno;
        (void)close(fd);
        return r;
    }
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static int start_timer(struct service *service)
{
    const struct fdmux_api *api = service->api;
    struct fdmux_timer_options options = {
        .struct_size = sizeof options,
        .fn = on_tick,
        .userdata = service,
        .destroyed = on_timer_destroyed,
    };
    int r = api->timer_add(service->loop, &options, &service->timer);

    if (r < 0)
        return r;
    hold(service); /* for the timer */
    return api->timer_arm(service->loop, service->timer,
                          api->loop_now(service->loop) + TICK_NS, TICK_NS);
}

/* Start the thread, and the io watcher whose `destroyed` ends it. */
static int start_io(struct service *service)
{
    struct fdmux_io_options options = {
        .struct_size = sizeof options,
        .fd = service->fd,
        .events = FDMUX_READ,
        .fn = on_readable,
        .userdata = service,
        .destroyed = on_io_destroyed,
    };
    int r = -pthread_create(&service->thread, NULL, work, service);

    if (r < 0) {
        (void)close(service->fd);
        return r;
    }
    hold(service); /* for the io watcher */
    r = service->api->io_add(service->loop, &options, &service->io);
    if (r < 0)
        on_io_destroyed(service); /* not registered, so fdmux does not call it */
    return r;
}

int service_start(const struct fdmux_api *api, struct fdmux_loop *loop,
                  struct service **ret_service)
{
    struct service *service = calloc(1, sizeof *service);
    int r;

    if (service == NULL)
        return -ENOMEM;
    service->api = api;
    service->loop = loop;
    service->last = &service->first;
    atomic_store(&service->references, 1); /* for the caller */
    (void)pthread_mutex_init(&service->lock, NULL); /* cannot fail without attributes */
    (void)pthread_cond_init(&service->has_work, NULL);
    r = service->fd = open_socket(&service->port);
    if (r >= 0)
        r = start_io(service);
    if (r >= 0)
        r = start_timer(service);
    if (r < 0) {
        service_stop(service);
        service_release(service);
        return r;
    }
    *ret_service = service;
    return 0;
}

void service_stop(struct service *service)
{
    /* A stale token is harmless: removal returns an error. */
    (void)service->api->timer_remove(service->loop, service->timer);
    (void)service->api->io_remove(service->loop, service->io);
}

int service_port(const struct service *service)
{
    return service->port;
}

bool service_has_ended(struct service *service)
{
    return atomic_load(&service->has_ended);
}

struct service_counts service_count(struct service *service)
{
    return (struct service_counts){
        .requests = atomic_load(&service->requests),
        .replies = atomic_load(&service->replies),
        .dropped = atomic_load(&service->dropped),
        .ticks = atomic_load(&service->ticks),
    };
}
