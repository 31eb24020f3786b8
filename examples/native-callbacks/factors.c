/* factors.c: a native thread whose results call Python functions.
 *
 * The thread finds the smallest factor of numbers. It never takes the GIL and never
 * touches a Python object, so it works while Python is busy, shutting down or
 * finalized. It puts its results into a queue. The program's loop calls drain() when
 * the queue has items, and drain() calls Python: it takes the GIL once for a whole
 * batch.
 *
 * Links nothing of fdmux. One queue at a time: this is an example. */
#include <Python.h>
#include <fdmux_python.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

/* Bound the batch, so that drain() does not keep the loop from other work. */
#define BATCH_MAX 256

/* The ticket represents the Python function, which no native thread may touch. */
struct job {
    struct job *next;
    uint64_t ticket;
    uint64_t number;
    uint64_t factor;
};

/* Shared with the thread, under the lock. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wanted = PTHREAD_COND_INITIALIZER;
static struct job *first_job;
static struct job **next_job = &first_job;
static int is_running;

/* Used only with the GIL: the functions by ticket. */
static PyObject *callbacks;
static uint64_t last_ticket;

/* ---- the thread ---------------------------------------------------------------- */

static uint64_t smallest_factor(uint64_t number)
{
    for (uint64_t factor = 2; factor <= number / factor; factor++) {
        if (number % factor == 0)
            return factor;
    }
    return number;
}

static struct job *wait_for_job(void)
{
    struct job *job;

    pthread_mutex_lock(&lock);
    while (first_job == NULL)
        pthread_cond_wait(&wanted, &lock);
    job = first_job;
    first_job = job->next;
    if (first_job == NULL)
        next_job = &first_job;
    pthread_mutex_unlock(&lock);
    return job;
}

static void drop_job(void *job, void *unused)
{
    (void)unused;
    free(job);
}

/* Ends at the first job after the queue was closed. `queue` is this thread's
 * reference. */
static void *work(void *queue)
{
    int r;

    do {
        struct job *job = wait_for_job();

        job->factor = smallest_factor(job->number);
        r = fdmux_queue_put(queue, job);
        if (r < 0)
            free(job); /* refused, so free it here */
    } while (r != -ESTALE);
    fdmux_queue_unref(queue);
    pthread_mutex_lock(&lock);
    is_running = 0;
    pthread_mutex_unlock(&lock);
    return NULL;
}

static int start_thread(struct fdmux_queue *queue)
{
    pthread_t thread;
    int r = -fdmux_queue_set_drop(queue, drop_job, NULL);

    pthread_mutex_lock(&lock);
    if (r == 0 && is_running)
        r = EBUSY;
    if (r == 0) {
        r = pthread_create(&thread, NULL, work, fdmux_queue_ref(queue));
        is_running = r == 0;
        if (r == 0)
            pthread_detach(thread); /* never joined */
        else
            fdmux_queue_unref(queue);
    }
    pthread_mutex_unlock(&lock);
    return r;
}

/* ---- functions for Python ------------------------------------------------------ */

static PyObject *start(PyObject *module, PyObject *object)
{
    struct fdmux_queue *queue = fdmux_queue_from_object(object);

    (void)module;
    if (queue == NULL)
        return NULL;
    errno = start_thread(queue);
    return errno == 0 ? Py_BuildValue("") : PyErr_SetFromErrno(PyExc_OSError);
}

static int keep_callback(uint64_t ticket, PyObject *callback)
{
    PyObject *key = PyLong_FromUnsignedLongLong(ticket);
    int r = key == NULL ? -1 : PyDict_SetItem(callbacks, key, callback);

    Py_XDECREF(key);
    return r;
}

/* Returns a new reference; NULL with an exception set. */
static PyObject *take_callback(uint64_t ticket)
{
    PyObject *key = PyLong_FromUnsignedLongLong(ticket);
    PyObject *callback = key == NULL ? NULL : PyDict_GetItemWithError(callbacks, key);

    Py_XINCREF(callback);
    if (callback != NULL && PyDict_DelItem(callbacks, key) < 0)
        Py_CLEAR(callback);
    else if (callback == NULL && !PyErr_Occurred())
        PyErr_SetString(PyExc_SystemError, "a result of an unknown job");
    Py_XDECREF(key);
    return callback;
}

static PyObject *submit(PyObject *module, PyObject *args)
{
    unsigned long long number;
    PyObject *callback;
    struct job *job;

    (void)module;
    if (!PyArg_ParseTuple(args, "KO", &number, &callback))
        return NULL;
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return PyErr_NoMemory();
    job->number = number;
    job->ticket = ++last_ticket;
    if (keep_callback(job->ticket, callback) < 0) {
        free(job);
        return NULL;
    }
    pthread_mutex_lock(&lock);
    *next_job = job;
    next_job = &job->next;
    pthread_cond_signal(&wanted);
    pthread_mutex_unlock(&lock);
    return Py_BuildValue("");
}

/* Call the function of one job, and free the job. */
static int finish(struct job *job)
{
    PyObject *callback = take_callback(job->ticket);
    PyObject *result = NULL;

    if (callback != NULL)
        result = PyObject_CallFunction(callback, "KK", (unsigned long long)job->number,
                                       (unsigned long long)job->factor);
    free(job);
    Py_XDECREF(callback);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* drain(queue): the loop calls this. Takes one job at a time, since an exception of a
 * function returns at once: the jobs left in the queue keep it readable. */
static PyObject *drain(PyObject *module, PyObject *object)
{
    struct fdmux_queue *queue = fdmux_queue_from_object(object);
    void *job;
    int r = 0;

    (void)module;
    if (queue == NULL)
        return NULL;
    for (int left = BATCH_MAX; left > 0; left--) {
        r = fdmux_queue_take(queue, &job, 1);
        if (r <= 0)
            break;
        if (finish(job) < 0)
            return NULL;
    }
    errno = r < 0 ? -r : 0;
    return errno == 0 ? Py_BuildValue("") : PyErr_SetFromErrno(PyExc_OSError);
}

/* waiting() -> int: how many functions have not been called. */
static PyObject *waiting(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    return PyLong_FromSsize_t(PyDict_Size(callbacks));
}

static PyMethodDef methods[] = {
    {"start", start, METH_O, "start(queue): Start the thread that fills queue."},
    {"submit", submit, METH_VARARGS,
     "submit(number, callback): Find the smallest factor of number in the thread; "
     "drain then calls callback(number, factor)."},
    {"drain", drain, METH_O, "drain(queue): Call the functions of what is done."},
    {"waiting", waiting, METH_NOARGS, "waiting() -> int: How many are not done."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef factors = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "factors",
    .m_size = -1, /* process-wide state: one thread, one queue */
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_factors(void)
{
    if (fdmux_import() < 0)
        return NULL;
    callbacks = PyDict_New();
    return callbacks == NULL ? NULL : PyModule_Create(&factors);
}
