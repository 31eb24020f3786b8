/* datagram_fixtures.h: endpoints that record their events, and plain sockets to talk to
 * them.
 *
 * A listener records each event of its endpoints, in order. */
#ifndef FDMUX_TESTS_DATAGRAM_FIXTURES_H
#define FDMUX_TESTS_DATAGRAM_FIXTURES_H

#include <netinet/in.h>

#include "datagram.h"
#include "fixtures.h"

#define HEARD_MAX 4096
#define TEXT_MAX 16

/* A datagram that was received. */
struct heard {
    uint32_t length;
    uint8_t flags;
    uint8_t ecn;
    char text[TEXT_MAX]; /* its first bytes */
    uint32_t address_size;
    uint32_t local_size;
    union fdmux__sockaddr address;
    union fdmux__sockaddr local;
};

struct listener {
    struct fdmux_loop *loop;
    /* Called after an event was recorded; may be NULL. */
    int (*reaction)(struct listener *listener,
                    const struct fdmux_datagram_event *event);
    int counts[5]; /* by kind of event */
    int destroyed;
    int error; /* of the last ERROR or CLOSED */
    int heard_count;
    int largest_batch;
    uint32_t error_address_size;
    union fdmux__sockaddr error_address;
    struct heard heard[HEARD_MAX];
};

/* A listener on the heap, since it is large; free it with the loop closed. */
struct listener *open_listener(struct fdmux_loop *loop);
struct fdmux_datagram_options datagram_options(struct listener *listener);
int note_datagrams(struct fdmux_loop *loop, const struct fdmux_datagram_event *event,
                   void *userdata);
void note_gone(void *userdata);

/* Endpoints. The port goes to *ret_port. */
uint64_t bind_loopback(struct listener *listener, uint32_t flags, uint16_t *ret_port);
uint64_t bind_with(struct listener *listener, const char *host,
                   const struct fdmux_datagram_options *options, uint16_t *ret_port);
uint64_t connect_loopback(struct listener *listener, uint32_t flags, uint16_t port);
/* Answer each batch with itself. */
int echo_batch(struct listener *listener, const struct fdmux_datagram_event *event);

struct sockaddr_in loopback(uint16_t port);
struct fdmux_datagram datagram_to(const struct sockaddr_in *where, const void *data,
                                  size_t length);
int send_text(struct fdmux_loop *loop, uint64_t endpoint, uint16_t port,
              const char *text);
struct fdmux_datagram_stats datagram_stats(struct fdmux_loop *loop, uint64_t endpoint);

/* Plain sockets on loopback: one that is connected to a port, and one that is bound. */
int open_talker(uint16_t port);
int open_receiver(uint16_t *ret_port);
void say(int fd, const char *text);
void expect_text(int fd, const char *text);
bool has_datagram(int fd);

/* Dispatch once without waiting, or until `*counter` is at least `count`. */
int run_once(struct fdmux_loop *loop);
void run_until(struct fdmux_loop *loop, const int *counter, int count);
/* Close the loop and free the listeners, whose endpoints all had their end. */
void end_with(struct fdmux_loop *loop, struct listener *listener, int endpoint_count);

#endif
