/* tls_library.c: finds the functions of the OpenSSL that Python's module _ssl uses.
 *
 * dlsym(3) looks in an object and in those that it is linked with, so the handle of
 * _ssl gives the functions that _ssl calls. An OpenSSL whose functions are hidden
 * inside of _ssl is not found. Knows nothing of SSL objects. */
#define _GNU_SOURCE /* dladdr(3), RTLD_NOLOAD */
#include "system.h"
#include "tls_session.h"

#if !defined(_WIN32)
#include <dlfcn.h>
#endif
#include <stddef.h>
#include <string.h>

struct tls_library tls_library;

#define FUNCTION(name, field) {name, offsetof(struct tls_library, field)}

/* Each function of OpenSSL that is called, and where its address is kept. */
static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    FUNCTION("SSL_do_handshake", functions.do_handshake),
    FUNCTION("SSL_read", functions.read),
    FUNCTION("SSL_write", functions.write),
    FUNCTION("SSL_shutdown", functions.shutdown),
    FUNCTION("ERR_clear_error", functions.clear_error),
    FUNCTION("ERR_peek_last_error", functions.peek_last_error),
    FUNCTION("SSL_set_bio", functions.set_bio),
    FUNCTION("SSL_set_read_ahead", functions.set_read_ahead),
    FUNCTION("BIO_meth_new", functions.bio_meth_new),
    FUNCTION("BIO_meth_free", functions.bio_meth_free),
    FUNCTION("BIO_meth_set_read", functions.bio_meth_set_read),
    FUNCTION("BIO_meth_set_write", functions.bio_meth_set_write),
    FUNCTION("BIO_meth_set_ctrl", functions.bio_meth_set_ctrl),
    FUNCTION("BIO_new", functions.bio_new),
    FUNCTION("BIO_set_init", functions.bio_set_init),
    FUNCTION("BIO_set_flags", functions.bio_set_flags),
    FUNCTION("BIO_clear_flags", functions.bio_clear_flags),
    FUNCTION("SSL_get_error", get_error),
    FUNCTION("SSL_get_rbio", get_rbio),
    FUNCTION("SSL_get_wbio", get_wbio),
    FUNCTION("SSL_is_server", is_server),
    FUNCTION("SSL_pending", pending),
    FUNCTION("SSL_get_version", get_version),
    FUNCTION("BIO_ctrl_pending", bio_pending),
    FUNCTION("OpenSSL_version_num", version_number),
    FUNCTION("OpenSSL_version", version_text),
};

#if defined(_WIN32)
/* Python for Windows brings OpenSSL as two libraries beside _ssl. Its names say the
 * version and, but for 32 bits, the processor. */
static HMODULE find_module(const wchar_t *const names[2])
{
    HMODULE module = NULL;

    for (int i = 0; i < 2 && module == NULL; i++)
        module = GetModuleHandleW(names[i]);
    return module;
}

static void *open_object(const char *path)
{
    static const wchar_t *const names[2] = {L"libssl-3-x64.dll", L"libssl-3.dll"};

    (void)path;
    return (void *)find_module(names);
}

static void *find_symbol(void *handle, const char *name)
{
    static const wchar_t *const names[2] = {L"libcrypto-3-x64.dll", L"libcrypto-3.dll"};
    FARPROC found = GetProcAddress((HMODULE)handle, name);
    HMODULE crypto = found == NULL ? find_module(names) : NULL;

    if (crypto != NULL)
        found = GetProcAddress(crypto, name);
    return (void *)(uintptr_t)found;
}
#else
/* The object that `path` names, or the one that has the interpreter. Nothing new is
 * loaded. The handle is never closed: it keeps the library. */
static void *open_object(const char *path)
{
    const int flags = RTLD_LAZY | RTLD_NOLOAD;
    void *anchor = NULL;
    void *handle = NULL;
    Dl_info info;

    if (path != NULL)
        return dlopen(path, flags);
    anchor = dlsym(RTLD_DEFAULT, "Py_GetVersion");
    if (anchor != NULL && dladdr(anchor, &info) != 0)
        handle = dlopen(info.dli_fname, flags);
    return handle != NULL ? handle : dlopen(NULL, flags); /* the program itself */
}

static void *find_symbol(void *handle, const char *name)
{
    return dlsym(handle, name);
}
#endif

/* Returns 0, or -1 with an exception. */
static int find_functions(struct tls_library *library, void *handle)
{
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *function = find_symbol(handle, symbols[i].name);

        if (function == NULL) {
            PyErr_Format(PyExc_ImportError, "the library of _ssl shows no %s",
                         symbols[i].name);
            return -1;
        }
        memcpy((char *)library + symbols[i].offset, (void *)&function, sizeof function);
    }
    return 0;
}

PyObject *tls_library_load(PyObject *module, PyObject *args)
{
    struct tls_library library = {.functions.struct_size = sizeof library.functions,
                                  .functions.get_error = tls_session_get_error};
    const char *path, *text;
    unsigned long number;
    Py_ssize_t head_size;
    void *handle;

    (void)module;
    if (!PyArg_ParseTuple(args, "zksn:tls_load", &path, &number, &text, &head_size))
        return NULL;
    handle = open_object(path);
    if (handle == NULL)
        return PyErr_Format(PyExc_ImportError, "the library of _ssl is not loaded");
    if (find_functions(&library, handle) < 0)
        return NULL;
    /* Another library of these names may be in the process: see what _ssl says. */
    if (library.version_number() != number ||
        strcmp(library.version_text(0), text) != 0)
        return PyErr_Format(PyExc_ImportError, "_ssl uses %s, but %s was found", text,
                            library.version_text(0));
    library.head_size = (size_t)head_size;
    library.is_loaded = true;
    tls_library = library;
    return delivery_new_ref(Py_None);
}
