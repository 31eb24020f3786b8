/* datagram_address.c: addresses as the kernel and as Python have them.
 *
 * A server hears from the same peers again and again, and answers them with the object
 * that it was given. So an endpoint remembers the objects of the last peers: a tuple is
 * found by the bytes of the address, and the bytes by the tuple, which cannot change.
 * The memory is bounded, whoever sends; a peer that has been forgotten is converted
 * anew. */
#include "datagram_object.h"

#include <stddef.h>
#include <string.h>

#define KNOWN_MAX 1024 /* peers; a power of two */
#define PORT_MAX 65535
#define HASH_FACTOR UINT64_C(0x9e3779b97f4a7c15) /* 2^64 / golden ratio */

struct known {
    PyObject *object;
    uint32_t size;
    unsigned char address[sizeof(struct sockaddr_in6)];
};

/* `known` has the objects that were made here, and after them those that were given:
 * a user may write an address in several ways, so these are never told. */
struct address_cache {
    struct known known[2 * KNOWN_MAX];
    uint16_t by_object[2 * KNOWN_MAX]; /* place in `known` + 1 */
};

/* ---- the cache ----------------------------------------------------------------- */

static uint32_t place_of(const void *address, size_t size)
{
    uint64_t hash = size;

    for (size_t i = 0; i + 4 <= size; i += 4) {
        uint32_t word;

        memcpy(&word, (const unsigned char *)address + i, sizeof word);
        hash = (hash ^ word) * HASH_FACTOR;
    }
    return (uint32_t)(hash >> 54); /* 10 bits */
}

static uint16_t *place_by_object(struct address_cache *cache, const PyObject *object)
{
    uint64_t hash = ((uint64_t)(uintptr_t)object >> 4) * HASH_FACTOR;

    return &cache->by_object[hash >> 53]; /* 11 bits */
}

static bool is_known(const struct known *known, const void *address, size_t size)
{
    return known->size == size && memcmp(known->address, address, size) == 0;
}

static void remember(struct address_cache *cache, PyObject *object, const void *address,
                     size_t size, bool was_given)
{
    uint32_t place = place_of(address, size) + (was_given ? KNOWN_MAX : 0);
    struct known *known = &cache->known[place];
    PyObject *old = known->object;

    known->object = delivery_new_ref(object);
    known->size = (uint32_t)size;
    memcpy(known->address, address, size);
    *place_by_object(cache, object) = (uint16_t)(place + 1);
    Py_XDECREF(old); /* a tuple of a str and numbers: runs no code */
}

static struct known *find_by_object(struct address_cache *cache, const PyObject *object)
{
    uint16_t place = *place_by_object(cache, object);

    if (place == 0 || cache->known[place - 1].object != object)
        return NULL;
    return &cache->known[place - 1];
}

/* NULL without memory: everything works without the cache. */
static struct address_cache *cache_of(struct endpoint_object *endpoint)
{
    if (endpoint->cache == NULL)
        endpoint->cache = PyMem_Calloc(1, sizeof *endpoint->cache);
    return endpoint->cache;
}

void endpoint_drop_cache(struct endpoint_object *endpoint)
{
    struct address_cache *cache = endpoint->cache;

    endpoint->cache = NULL;
    for (int i = 0; cache != NULL && i < 2 * KNOWN_MAX; i++)
        Py_XDECREF(cache->known[i].object);
    PyMem_Free(cache);
}

/* ---- to Python ----------------------------------------------------------------- */

static PyObject *inet_object(const struct sockaddr_in *address)
{
    char host[INET_ADDRSTRLEN];

    (void)inet_ntop(AF_INET, &address->sin_addr, host, sizeof host); /* it has room */
    return Py_BuildValue("(si)", host, (int)ntohs(address->sin_port));
}

static PyObject *inet6_object(const struct sockaddr_in6 *address)
{
    char host[INET6_ADDRSTRLEN];

    (void)inet_ntop(AF_INET6, &address->sin6_addr, host, sizeof host); /* the same */
    return Py_BuildValue("(siII)", host, (int)ntohs(address->sin6_port),
                         (unsigned)ntohl(address->sin6_flowinfo),
                         (unsigned)address->sin6_scope_id);
}

/* As the module socket: a str for a path, bytes for an abstract name. */
static PyObject *path_object(const struct sockaddr_un *address, size_t size)
{
    size_t length = size - offsetof(struct sockaddr_un, sun_path);
    const char *path = address->sun_path;

    if (size <= offsetof(struct sockaddr_un, sun_path))
        return delivery_new_ref(Py_None);
    if (path[0] == '\0')
        return PyBytes_FromStringAndSize(path, (Py_ssize_t)length);
    return PyUnicode_DecodeFSDefaultAndSize(path, (Py_ssize_t)strnlen(path, length));
}

PyObject *delivery_address_object(const void *address, size_t size)
{
    union any_sockaddr any = {{0}};

    memcpy(&any, address, size < sizeof any ? size : sizeof any);
    if (any.generic.sa_family == AF_INET)
        return inet_object(&any.inet);
    if (any.generic.sa_family == AF_INET6)
        return inet6_object(&any.inet6);
    return path_object(&any.local, size);
}

PyObject *endpoint_address_object(struct endpoint_object *endpoint, const void *address,
                                  size_t size)
{
    struct address_cache *cache = NULL;
    PyObject *object;

    if (address == NULL)
        return delivery_new_ref(Py_None);
    if (size <= sizeof(struct sockaddr_in6))
        cache = cache_of(endpoint);
    if (cache != NULL &&
        is_known(&cache->known[place_of(address, size)], address, size))
        return delivery_new_ref(cache->known[place_of(address, size)].object);
    object = delivery_address_object(address, size);
    if (cache != NULL && object != NULL && PyTuple_Check(object))
        remember(cache, object, address, size, false);
    return object;
}

PyObject *endpoint_host_object(const void *address)
{
    const struct sockaddr *generic = address;
    char host[INET6_ADDRSTRLEN];

    if (generic->sa_family == AF_INET)
        (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, host,
                        sizeof host); /* it has room */
    else
        (void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr,
                        host, sizeof host); /* the same */
    return PyUnicode_FromString(host);
}

/* ---- from Python --------------------------------------------------------------- */

static int refuse(PyObject *object, const char *wanted)
{
    PyErr_Format(PyExc_TypeError, "address is %R; it must be %s", object, wanted);
    return -1;
}

static int parse_host(PyObject *host, union any_sockaddr *ret_address)
{
    const char *text = PyUnicode_AsUTF8AndSize(host, NULL);

    if (text == NULL)
        return -1;
    memset(ret_address, 0, sizeof *ret_address);
    if (inet_pton(AF_INET, text, &ret_address->inet.sin_addr) == 1) {
        ret_address->inet.sin_family = AF_INET;
        return sizeof ret_address->inet;
    }
    memset(ret_address, 0, sizeof *ret_address);
    if (inet_pton(AF_INET6, text, &ret_address->inet6.sin6_addr) == 1) {
        ret_address->inet6.sin6_family = AF_INET6;
        return sizeof ret_address->inet6;
    }
    PyErr_Format(PyExc_ValueError,
                 "host is %R; it must be an IPv4 or IPv6 address: resolve names first",
                 host);
    return -1;
}

int endpoint_host_from(PyObject *host, void *ret_address)
{
    union any_sockaddr address;
    int size = parse_host(host, &address);

    if (size > 0)
        memcpy(ret_address, &address, (size_t)size);
    return size;
}

/* A number in a tuple, up to `max`. Returns it, or -1 with an exception. */
static long long number_at(PyObject *tuple, Py_ssize_t index, const char *name,
                           long long max)
{
    PyObject *object = PyTuple_GetItem(tuple, index);
    long long number = PyLong_AsLongLong(object);

    if (number == -1 && PyErr_Occurred() != NULL)
        return -1;
    if (number >= 0 && number <= max)
        return number;
    PyErr_Format(PyExc_OverflowError, "%s is %R; it must be in 0..%lld", name, object,
                 max);
    return -1;
}

/* A socket of IPv6 reaches IPv4 by addresses that stand for it, RFC 4291. */
static void map_to_inet6(union any_sockaddr *address)
{
    struct in_addr inet = address->inet.sin_addr;

    memset(address, 0, sizeof *address);
    address->inet6.sin6_family = AF_INET6;
    address->inet6.sin6_addr.s6_addr[10] = address->inet6.sin6_addr.s6_addr[11] = 0xff;
    memcpy(&address->inet6.sin6_addr.s6_addr[12], &inet, sizeof inet);
}

static int parse_tuple(PyObject *tuple, int family, union any_sockaddr *ret_address)
{
    Py_ssize_t count = PyTuple_Size(tuple);
    long long port, flow = 0, scope = 0;
    int size;

    if (count < 2 || count > 4 || !PyUnicode_Check(PyTuple_GetItem(tuple, 0)))
        return refuse(tuple, "(host, port)");
    size = parse_host(PyTuple_GetItem(tuple, 0), ret_address);
    port = size < 0 ? -1 : number_at(tuple, 1, "port", PORT_MAX);
    if (port >= 0 && count > 2)
        flow = number_at(tuple, 2, "flow", 0xfffff); /* 20 bits, RFC 6437 */
    if (port >= 0 && count > 3)
        scope = number_at(tuple, 3, "scope", UINT32_MAX);
    if (port < 0 || flow < 0 || scope < 0)
        return -1;
    if (family == AF_INET6 && ret_address->generic.sa_family == AF_INET) {
        map_to_inet6(ret_address);
        size = sizeof ret_address->inet6;
    }
    ret_address->inet.sin_port = htons((uint16_t)port); /* at the same place in both */
    if (ret_address->generic.sa_family == AF_INET6) {
        ret_address->inet6.sin6_flowinfo = htonl((uint32_t)flow);
        ret_address->inet6.sin6_scope_id = (uint32_t)scope;
    }
    return size;
}

static int parse_path(PyObject *object, union any_sockaddr *ret_address)
{
    struct sockaddr_un *local = &ret_address->local;
    PyObject *encoded = PyUnicode_Check(object) ? PyUnicode_EncodeFSDefault(object)
                                                : delivery_new_ref(object);
    Py_ssize_t length = encoded == NULL ? -1 : PyBytes_Size(encoded);
    int size = -1;

    if (length > 0 && (size_t)length < sizeof local->sun_path) {
        memset(ret_address, 0, sizeof *ret_address);
        local->sun_family = AF_UNIX;
        memcpy(local->sun_path, PyBytes_AsString(encoded), (size_t)length);
        /* unix(7): the size of an abstract name is exact, that of a path has its NUL.
         */
        size = (int)(offsetof(struct sockaddr_un, sun_path) + (size_t)length +
                     (local->sun_path[0] == '\0' ? 0 : 1));
    } else if (encoded != NULL) {
        PyErr_Format(PyExc_ValueError,
                     "address is %R; the path of a Unix socket has 1 to %zu bytes",
                     object, sizeof local->sun_path - 1);
    }
    Py_XDECREF(encoded);
    return size;
}

int endpoint_address_from(struct endpoint_object *endpoint, PyObject *object,
                          union any_sockaddr *ret_address)
{
    struct address_cache *cache = cache_of(endpoint);
    const struct known *known = cache == NULL ? NULL : find_by_object(cache, object);
    int size;

    if (known != NULL) {
        memcpy(ret_address, known->address, known->size);
        return (int)known->size;
    }
    if (object == Py_None)
        return 0;
    if (PyUnicode_Check(object) || PyBytes_Check(object))
        return parse_path(object, ret_address);
    if (!PyTuple_Check(object))
        return refuse(object, "(host, port), the path of a Unix socket, or None");
    size = parse_tuple(object, endpoint->family, ret_address);
    /* Only what cannot change is found by its identity. */
    if (size > 0 && cache != NULL && PyTuple_CheckExact(object) &&
        PyTuple_Size(object) == 2 && PyUnicode_CheckExact(PyTuple_GetItem(object, 0)) &&
        PyLong_CheckExact(PyTuple_GetItem(object, 1)))
        remember(cache, object, ret_address, (size_t)size, true);
    return size;
}
