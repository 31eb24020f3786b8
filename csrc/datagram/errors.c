/* errors.c: what the network reports about datagrams that were sent.
 *
 * With IP_RECVERR (FDMUX_DATAGRAM_ERRORS) the kernel keeps a queue of such reports,
 * with the address of each datagram, ip(7). The same error is also the result of the
 * next call on the socket, whatever that call sends, and to whom. */
#include "datagram.h"

#include <errno.h>
#include <string.h>

#define REPORTS_MAX 16 /* told in a batch */

bool fdmux__is_peer_error(int error)
{
    switch (error) {
    case EACCES:
    case ECONNREFUSED:
    case ECONNRESET: /* a Unix socket whose peer has gone */
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case EMSGSIZE: /* longer than the path allows, ip(7) IP_MTU_DISCOVER */
    case ENETDOWN:
    case ENETRESET: /* recvfrom of Windows: the time to live has expired */
    case ENETUNREACH:
#if defined(ENONET)
    case ENONET:
#endif
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case EPERM:
    case EPROTO:
        return true;
    default:
        return false;
    }
}

/* ---- errors of our own calls --------------------------------------------------- */

void fdmux__endpoint_note_error(struct fdmux_loop *loop,
                                struct fdmux__endpoint *endpoint, int error,
                                const struct fdmux_datagram *datagram)
{
    if (endpoint->noted_error != 0)
        return;
    endpoint->noted_error = error;
    endpoint->noted_size = 0;
    if (datagram != NULL && datagram->address != NULL) {
        endpoint->noted_size = datagram->address_size;
        memcpy(&endpoint->noted_address, datagram->address, endpoint->noted_size);
    }
    fdmux__endpoint_add_pending(loop, endpoint);
}

int fdmux__endpoint_tell_error(struct fdmux_loop *loop,
                               struct fdmux__endpoint *endpoint)
{
    int error = endpoint->noted_error;

    endpoint->noted_error = 0;
    return fdmux__endpoint_deliver(
        loop, endpoint,
        (struct fdmux_datagram_event){
            .kind = FDMUX_DATAGRAM_ERROR,
            .error = error,
            .address = endpoint->noted_size == 0 ? NULL : &endpoint->noted_address,
            .address_size = endpoint->noted_size,
        });
}

/* ---- the error queue ----------------------------------------------------------- */

struct report {
    union fdmux__sockaddr address; /* where the datagram was sent */
    unsigned address_size;
    int error;
};

/* Take one report. Returns 0; -EAGAIN, if there is none. */
static int take_report(const struct fdmux__endpoint *endpoint,
                       struct report *ret_report)
{
    ret_report->address_size = sizeof ret_report->address;
    return fdmux__sys_take_report(endpoint->fd, &ret_report->error,
                                  &ret_report->address, &ret_report->address_size);
}

static int tell_report(struct fdmux_loop *loop, struct fdmux__endpoint *endpoint,
                       const struct report *report)
{
    if (report->error == 0 || (endpoint->state & FDMUX__ENDPOINT_FAILED) != 0)
        return 0;
    endpoint->stats.errors++;
    return fdmux__endpoint_deliver(
        loop, endpoint,
        (struct fdmux_datagram_event){
            .kind = FDMUX_DATAGRAM_ERROR,
            .error = report->error,
            .address = report->address_size == 0 ? NULL : &report->address,
            .address_size = report->address_size,
        });
}

int fdmux__endpoint_read_errors(struct fdmux_loop *loop,
                                struct fdmux__endpoint *endpoint)
{
    struct report report = {.error = 0};
    int told = 0;
    int r = 0;

    /* A function may close the endpoint, and with it the descriptor. */
    for (int i = 0; i < REPORTS_MAX && r >= 0 && fdmux__is_fd(endpoint->fd); i++) {
        if (take_report(endpoint, &report) < 0)
            break;
        told += report.error != 0;
        r = tell_report(loop, endpoint, &report);
    }
    /* The error that is left for the next call was told just now. */
    if (told > 0 && fdmux__is_fd(endpoint->fd))
        (void)fdmux__sys_get_option(endpoint->fd, SOL_SOCKET, SO_ERROR);
    return r;
}
