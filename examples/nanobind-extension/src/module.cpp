// module.cpp: the Python module sensor_nanobind, a thin wrapper of sensor.cpp.
//
// Its one rule: a Handle keeps the Python object of its loop alive, so that the loop's
// memory exists as long as close() may be called.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include <cerrno>
#include <memory>
#include <string>

#include <fdmux_python.h>

#include "sensor.hpp"

namespace nb = nanobind;

namespace {

struct Handle {
    nb::object owner; // of the loop; destroyed after the sensor
    std::shared_ptr<Sensor> sensor;

    ~Handle()
    {
        if (sensor)
            sensor->stop();
    }
};

// Raise the OSError (or its subclass) for a negative result.
[[noreturn]] void raise_error(int result, const std::string &path)
{
    errno = -result;
    PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
    throw nb::python_error();
}

std::unique_ptr<Handle> attach(const std::string &path, nb::object owner)
{
    auto handle = std::make_unique<Handle>();

    if (owner.is_none())
        owner = nb::module_::import_("fdmux").attr("current")();
    fdmux_loop *loop = fdmux_from_object(owner.ptr());
    if (loop == nullptr)
        throw nb::python_error();
    handle->owner = std::move(owner);
    const int r = Sensor::start(fdmux_table, loop, path, handle->sensor);
    if (r < 0)
        raise_error(r, path);
    return handle;
}

nb::dict counts(const Handle &handle)
{
    nb::dict found;

    found["bytes"] = handle.sensor->bytes.load();
    found["ticks"] = handle.sensor->ticks.load();
    found["samples"] = handle.sensor->samples.load();
    found["total"] = handle.sensor->total.load();
    found["dropped"] = handle.sensor->dropped.load();
    return found;
}

} // namespace

NB_MODULE(sensor_nanobind, module)
{
    if (fdmux_import() < 0)
        throw nb::python_error();
    module.doc() = "A sensor in C++ that runs in the loop of a Python program.";
    module.def("attach", attach, nb::arg("path"), nb::arg("loop") = nb::none(),
               "Open a sensor in the loop of any object that has one, or of what runs "
               "here.");
    module.def(
        "live", [] { return Sensor::live_count.load(); },
        "Count the sensors that are in memory.");
    nb::class_<Handle>(module, "Sensor", "A sensor in a loop; attach() makes it.")
        // It joins a thread: release the GIL.
        .def(
            "close", [](const Handle &handle) { handle.sensor->stop(); },
            nb::call_guard<nb::gil_scoped_release>(),
            "End the sensor, not the loop. Idempotent.")
        .def(
            "has_ended",
            [](const Handle &handle) { return handle.sensor->has_ended.load(); },
            "Whether the descriptor is closed and the thread joined.")
        .def("counts", counts, "Return what has happened so far.");
}
