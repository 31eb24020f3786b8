// sensor.hpp: a sensor in C++ that runs in any event loop.
//
// It reads a FIFO, has a timer, and gets samples from its own thread. It knows nothing
// about Python: it gets fdmux's function table, a loop, and a path.
#ifndef SENSOR_HPP
#define SENSOR_HPP

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include <fdmux_api.h>

class Sensor : public std::enable_shared_from_this<Sensor> {
  public:
    // Open `path` and start. Returns 0 or -errno; on failure nothing is left behind.
    static int start(const fdmux_api *api, fdmux_loop *loop, const std::string &path,
                     std::shared_ptr<Sensor> &ret_sensor);

    Sensor(const fdmux_api *api, fdmux_loop *loop);
    ~Sensor();
    Sensor(const Sensor &) = delete;
    Sensor &operator=(const Sensor &) = delete;

    // Remove the watchers and join the thread. Idempotent. The loop may be closed, but
    // its memory must still exist.
    void stop() noexcept;

    std::atomic<bool> has_ended{false}; // the FIFO is closed, and the thread joined
    std::atomic<std::uint64_t> bytes{0}, ticks{0}, samples{0}, total{0}, dropped{0};
    static std::atomic<int> live_count; // sensors in memory

  private:
    struct Sample;

    int start_io(const std::string &path);
    int start_timer();
    int read_some() noexcept;
    int tick() noexcept;
    void measure() noexcept;
    void end() noexcept;

    static int on_readable(fdmux_loop *loop, std::uint64_t io, std::uint32_t events,
                           void *userdata) noexcept;
    static int on_tick(fdmux_loop *loop, std::uint64_t timer, void *userdata) noexcept;
    static int on_sample(fdmux_loop *loop, void *userdata) noexcept;
    static void on_io_destroyed(void *userdata) noexcept;
    static void on_timer_destroyed(void *userdata) noexcept;

    const fdmux_api *api_;
    fdmux_loop *loop_;
    std::uint64_t io_ = 0;
    std::uint64_t timer_ = 0;
    int fd_ = -1;
    std::thread thread_; // used only by functions of the loop
};

#endif
