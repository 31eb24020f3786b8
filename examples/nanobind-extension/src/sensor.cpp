// sensor.cpp: a descriptor, a timer and a thread in a loop that the sensor does not
// own.
//
// Its one rule: userdata is a std::shared_ptr on the heap. A watcher's is deleted in
// `destroyed`, its last call; a sample's when its posted call has run. Functions that C
// calls are noexcept and return -errno: an exception cannot pass through C.
#include "sensor.hpp"

#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

namespace {

using Reference = std::shared_ptr<Sensor>;

constexpr std::int64_t TICK_NS = 2'000'000;
constexpr std::uint64_t SAMPLE_COUNT = 1000;

Sensor &sensor_of(void *userdata)
{
    return **static_cast<Reference *>(userdata);
}

} // namespace

struct Sensor::Sample {
    Reference sensor;
    std::uint64_t value;
};

std::atomic<int> Sensor::live_count{0};

Sensor::Sensor(const fdmux_api *api, fdmux_loop *loop) : api_(api), loop_(loop)
{
    ++live_count;
}

Sensor::~Sensor()
{
    --live_count;
}

// ---- the thread -------------------------------------------------------------------

// Runs once for each sample, on the loop's thread. `loop` is NULL if the loop was
// closed before. In both cases this function deletes the sample.
int Sensor::on_sample(fdmux_loop *loop, void *userdata) noexcept
{
    std::unique_ptr<Sample> sample(static_cast<Sample *>(userdata));

    if (loop == nullptr) {
        ++sample->sensor->dropped;
    } else {
        ++sample->sensor->samples;
        sample->sensor->total += sample->value;
    }
    return 0;
}

void Sensor::measure() noexcept
{
    for (std::uint64_t value = 0; value < SAMPLE_COUNT; value++) {
        auto *sample = new (std::nothrow) Sample{shared_from_this(), value};

        if (sample == nullptr)
            ++dropped;
        else if (api_->post(loop_, on_sample, sample) < 0)
            (void)on_sample(nullptr, sample); // refused, so delete it here
    }
}

// ---- functions of the loop --------------------------------------------------------

// Whatever runs the loop returns a negative result; Python raises it as an OSError. The
// watcher stays and is called again.
int Sensor::read_some() noexcept
{
    char buffer[4096];
    const ssize_t size = read(fd_, buffer, sizeof buffer);

    if (size < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (size == 0)
        stop(); // unplugged; a function may remove its own watcher
    bytes += static_cast<std::uint64_t>(size);
    return std::memchr(buffer, '!', static_cast<std::size_t>(size)) ? -EPROTO : 0;
}

// The first tick starts the thread, when start() can no longer fail.
int Sensor::tick() noexcept
{
    ++ticks;
    if (thread_.joinable())
        return 0;
    try {
        thread_ = std::thread(&Sensor::measure, this); // joined in end()
    } catch (const std::system_error &error) {
        return -error.code().value();
    } catch (const std::bad_alloc &) {
        return -ENOMEM;
    }
    return 0;
}

// The only function that closes and joins. Called exactly once, for any kind of end.
void Sensor::end() noexcept
{
    if (thread_.joinable())
        thread_.join();
    (void)close(fd_); // only read: nothing to flush
    has_ended = true;
}

int Sensor::on_readable(fdmux_loop *, std::uint64_t, std::uint32_t,
                        void *userdata) noexcept
{
    return sensor_of(userdata).read_some();
}

int Sensor::on_tick(fdmux_loop *, std::uint64_t, void *userdata) noexcept
{
    return sensor_of(userdata).tick();
}

void Sensor::on_io_destroyed(void *userdata) noexcept
{
    sensor_of(userdata).end();
    delete static_cast<Reference *>(userdata);
}

void Sensor::on_timer_destroyed(void *userdata) noexcept
{
    delete static_cast<Reference *>(userdata);
}

// ---- start and stop ---------------------------------------------------------------

int Sensor::start_io(const std::string &path)
{
    auto reference = std::make_unique<Reference>(shared_from_this());
    fdmux_io_options options{};

    fd_ = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd_ < 0)
        return -errno;
    options.struct_size = sizeof options;
    options.fd = fd_;
    options.events = FDMUX_READ;
    options.fn = on_readable;
    options.userdata = reference.get();
    options.destroyed = on_io_destroyed;
    const int r = api_->io_add(loop_, &options, &io_);
    if (r < 0)
        end(); // not registered, so fdmux does not call it
    else
        (void)reference.release(); // on_io_destroyed deletes it
    return r;
}

int Sensor::start_timer()
{
    auto reference = std::make_unique<Reference>(shared_from_this());
    fdmux_timer_options options{};

    options.struct_size = sizeof options;
    options.fn = on_tick;
    options.userdata = reference.get();
    options.destroyed = on_timer_destroyed;
    const int r = api_->timer_add(loop_, &options, &timer_);
    if (r < 0)
        return r;
    (void)reference.release(); // on_timer_destroyed deletes it
    return api_->timer_arm(loop_, timer_, api_->loop_now(loop_) + TICK_NS, TICK_NS);
}

int Sensor::start(const fdmux_api *api, fdmux_loop *loop, const std::string &path,
                  std::shared_ptr<Sensor> &ret_sensor)
{
    auto sensor = std::make_shared<Sensor>(api, loop);
    int r = sensor->start_io(path);

    if (r >= 0)
        r = sensor->start_timer();
    if (r < 0) {
        sensor->stop();
        return r;
    }
    ret_sensor = std::move(sensor);
    return 0;
}

void Sensor::stop() noexcept
{
    // A stale token is harmless: removal returns an error.
    (void)api_->timer_remove(loop_, timer_);
    (void)api_->io_remove(loop_, io_);
}
