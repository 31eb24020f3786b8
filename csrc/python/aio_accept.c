/* aio_accept.c: accepts one connection for asyncio's loop.
 *
 * The module socket does the same in six calls: its accept looks the family up as an
 * enum, and makes an exception when there is no connection left, which is at least once
 * for each event. */
#include "aio.h"
#include "delivery.h"
#include "system.h"

#include <errno.h>
#include <limits.h>

/* (fd, family, peername, sockname); names of other families than the internet's are
 * None. */
static PyObject *describe(int fd, const struct sockaddr_storage *peer,
                          socklen_t peer_size)
{
    struct sockaddr_storage own = {0};
    socklen_t own_size = sizeof own;
    PyObject *peer_name = NULL, *own_name = NULL, *all = NULL;
    int family;

    if (getsockname((fdmux_fd)fd, (struct sockaddr *)&own, &own_size) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    family = own.ss_family;
    system_no_delay(fd, family);
    if (family == AF_INET || family == AF_INET6) {
        peer_name = delivery_address_object(peer, (size_t)peer_size);
        own_name = delivery_address_object(&own, (size_t)own_size);
    } else {
        peer_name = delivery_new_ref(Py_None);
        own_name = delivery_new_ref(Py_None);
    }
    if (peer_name != NULL && own_name != NULL)
        all = Py_BuildValue("(iiOO)", fd, family, peer_name, own_name);
    Py_XDECREF(peer_name);
    Py_XDECREF(own_name);
    return all;
}

PyObject *aio_accept(PyObject *module, PyObject *number)
{
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;
    long listener = PyLong_AsLong(number);
    PyObject *all;
    int fd;

    (void)module;
    if (PyErr_Occurred() != NULL)
        return NULL;
    if (listener < 0 || listener > INT_MAX) {
        errno = EBADF;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    fd = system_accept((int)listener, &peer, &size);
    if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ||
                   errno == ECONNABORTED))
        return delivery_new_ref(Py_None);
    if (fd < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    all = describe(fd, &peer, size);
    if (all == NULL)
        system_close(fd); /* nobody else knows of it */
    return all;
}
