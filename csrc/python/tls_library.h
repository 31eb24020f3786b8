/* tls_library.h: the functions of the OpenSSL that Python's module _ssl has loaded.
 *
 * They are found at run time, so nothing is linked, and what is called is the library
 * that made the SSL. */
#ifndef FDMUX_PYTHON_TLS_LIBRARY_H
#define FDMUX_PYTHON_TLS_LIBRARY_H

#include "delivery.h"

struct tls_library {
    bool is_loaded;
    size_t head_size; /* of a Python object: its own words follow */
    struct fdmux_tls_functions functions; /* for the core; get_error is ours */
    int (*get_error)(const void *ssl, int result);
    void *(*get_rbio)(const void *ssl);
    void *(*get_wbio)(const void *ssl);
    int (*is_server)(const void *ssl);
    int (*pending)(const void *ssl);
    const char *(*get_version)(const void *ssl);
    size_t (*bio_pending)(void *bio);
    unsigned long (*version_number)(void);
    const char *(*version_text)(int what);
};
extern struct tls_library tls_library;

/* tls_load(path, version_number, version_text, head_size, /): find the functions, in
 * the library of that extension module, or with None in what the interpreter itself is
 * linked with. The version is what the module ssl says. Raises ImportError. */
PyObject *tls_library_load(PyObject *module, PyObject *args);

#endif
