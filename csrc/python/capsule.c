/* capsule.c: makes the capsules by which native code finds the loop of an object.
 *
 * A function of the module rather than of cffi's, since it needs the object that the
 * capsule keeps, and what cffi would pass is its id(), an address only in CPython. */
#include "delivery.h"

/* glue.h numbers the names. */
static const char *const names[] = {"fdmux._C_API", "fdmux.loop", "fdmux.queue",
                                    "fdmux.memory"};

/* With its own reference to the owner. */
static void release_owner(PyObject *capsule)
{
    PyObject *owner = PyCapsule_GetContext(capsule);

    Py_XDECREF(owner);
}

static PyObject *make(void *pointer, const char *name, void *end, PyObject *owner)
{
    bool is_ours = end == NULL;
    PyObject *capsule = PyCapsule_New(
        pointer, name, is_ours ? release_owner : (PyCapsule_Destructor)end);

    if (capsule == NULL || !is_ours)
        return capsule;
    if (PyCapsule_SetContext(capsule, owner) < 0) { /* never: it is a capsule */
        Py_DECREF(capsule);
        return NULL;
    }
    Py_INCREF(owner);
    return capsule;
}

/* make_capsule(pointer, name, destructor, owner): wrap a C pointer; `destructor` is the
 * address of a C function, or 0 for a capsule that keeps `owner` alive. */
PyObject *capsule_make(PyObject *module, PyObject *args)
{
    PyObject *pointer_object, *end_object, *owner;
    unsigned int name;
    void *pointer, *end;

    (void)module;
    if (!PyArg_ParseTuple(args, "OIOO:make_capsule", &pointer_object, &name,
                          &end_object, &owner))
        return NULL;
    if (name >= sizeof names / sizeof names[0])
        return PyErr_Format(PyExc_ValueError, "no capsule has the number %u", name);
    pointer = PyLong_AsVoidPtr(pointer_object);
    end = PyLong_AsVoidPtr(end_object);
    return PyErr_Occurred() != NULL ? NULL : make(pointer, names[name], end, owner);
}
