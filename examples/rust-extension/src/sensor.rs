//! A sensor in Rust that runs in any event loop.
//!
//! Its one rule: C gets `Arc`s as raw pointers. A watcher's is taken back in
//! `destroyed`, its last call; a sample's when its posted call runs; the owner's in
//! `sensor_release`. The last one drops the sensor. A panic aborts the process: it
//! cannot pass through C.

mod fdmux;

use fdmux::{Api, IoOptions, Loop, LoopHandle, TimerOptions, READ};
use std::ffi::{c_char, c_void, CStr, OsStr};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::os::raw::c_int;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};

const TICK_NS: i64 = 2_000_000;
const SAMPLE_COUNT: u64 = 1000;

// Values of Linux, to need no crate.
const O_NONBLOCK: i32 = 0o4000;
const EIO: c_int = 5;
const EPROTO: c_int = 71;
const EOPNOTSUPP: c_int = 95;

static LIVE: AtomicUsize = AtomicUsize::new(0);

/// A loop. Any thread may use it (fdmux.h).
#[derive(Clone, Copy)]
struct Home {
    api: &'static Api,
    handle: *mut Loop,
}
unsafe impl Send for Home {}
unsafe impl Sync for Home {}

#[derive(Default)]
struct Counts {
    bytes: AtomicU64,
    ticks: AtomicU64,
    samples: AtomicU64,
    total: AtomicU64,
    dropped: AtomicU64,
}

pub struct Sensor {
    home: Home,
    io: AtomicU64,
    timer: AtomicU64,
    fifo: Mutex<Option<File>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    has_ended: AtomicBool,
    counts: Counts,
}

struct Sample {
    sensor: Arc<Sensor>,
    value: u64,
}

impl Drop for Sensor {
    fn drop(&mut self) {
        LIVE.fetch_sub(1, SeqCst);
    }
}

impl Sensor {
    fn start(home: Home, path: &CStr) -> Result<Arc<Sensor>, c_int> {
        let fifo = OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(OsStr::from_bytes(path.to_bytes()))
            .map_err(code_of)?;
        LIVE.fetch_add(1, SeqCst);
        let sensor = Arc::new(Sensor {
            home,
            io: AtomicU64::new(0),
            timer: AtomicU64::new(0),
            fifo: Mutex::new(None),
            thread: Mutex::new(None),
            has_ended: AtomicBool::new(false),
            counts: Counts::default(),
        });
        sensor
            .start_io(fifo)
            .and_then(|()| sensor.start_timer())
            .inspect_err(|_| sensor.stop())?;
        Ok(sensor)
    }

    fn start_io(self: &Arc<Self>, fifo: File) -> Result<(), c_int> {
        let options = IoOptions {
            struct_size: size_of::<IoOptions>(),
            fd: fifo.as_raw_fd(),
            events: READ,
            callback: Some(on_readable),
            userdata: into_userdata(self),
            destroyed: Some(on_io_destroyed),
            tag: 0,
            flags: 0,
        };
        *self.fifo.lock().unwrap() = Some(fifo);
        let mut token = 0;
        let result =
            unsafe { (self.home.api.io_add)(self.home.handle, &options, &mut token) };
        if result < 0 {
            // Not registered, so fdmux does not call it.
            unsafe { on_io_destroyed(options.userdata) };
        }
        self.io.store(token, SeqCst);
        checked(result)
    }

    fn start_timer(self: &Arc<Self>) -> Result<(), c_int> {
        let Home { api, handle } = self.home;
        let options = TimerOptions {
            struct_size: size_of::<TimerOptions>(),
            callback: Some(on_tick),
            userdata: into_userdata(self),
            destroyed: Some(on_timer_destroyed),
            tag: 0,
            flags: 0,
        };
        let mut token = 0;
        let result = unsafe { (api.timer_add)(handle, &options, &mut token) };
        if result < 0 {
            unsafe { on_timer_destroyed(options.userdata) };
        }
        checked(result)?;
        self.timer.store(token, SeqCst);
        let deadline = unsafe { (api.loop_now)(handle) } + TICK_NS;
        checked(unsafe { (api.timer_arm)(handle, token, deadline, TICK_NS) })
    }

    /// A stale token is harmless: removal returns an error.
    fn stop(&self) {
        let Home { api, handle } = self.home;
        unsafe {
            (api.timer_remove)(handle, self.timer.load(SeqCst));
            (api.io_remove)(handle, self.io.load(SeqCst));
        }
    }

    /// Returns how many bytes were read: 0 at the end of the FIFO.
    fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.fifo.lock().unwrap().as_mut() {
            Some(fifo) => fifo.read(buffer),
            None => Ok(0),
        }
    }

    fn start_thread(self: &Arc<Self>) -> std::io::Result<()> {
        let mut thread = self.thread.lock().unwrap();
        if thread.is_none() {
            let sensor = Arc::clone(self);
            *thread = Some(Builder::new().spawn(move || measure(&sensor))?);
        }
        Ok(())
    }
}

fn measure(sensor: &Arc<Sensor>) {
    for value in 0..SAMPLE_COUNT {
        let sensor = Arc::clone(sensor);
        let Home { api, handle } = sensor.home;
        let sample = Box::into_raw(Box::new(Sample { sensor, value })).cast();
        unsafe {
            if (api.post)(handle, on_sample, sample) < 0 {
                on_sample(ptr::null_mut(), sample); // refused, so free it here
            }
        }
    }
}

// ---- functions of the loop ---------------------------------------------------------

/// Whatever runs the loop returns a negative result; Python raises it as an OSError. The
/// watcher stays and is called again.
unsafe extern "C" fn on_readable(
    _: *mut Loop,
    _: u64,
    _: u32,
    userdata: *mut c_void,
) -> c_int {
    let sensor = unsafe { borrow(userdata) };
    let mut buffer = [0; 4096];
    let size = match sensor.read(&mut buffer) {
        Ok(size) => size,
        Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
        Err(error) if error.kind() == ErrorKind::Interrupted => return 0,
        Err(error) => return -code_of(error),
    };
    if size == 0 {
        sensor.stop(); // unplugged; a function may remove its own watcher
    }
    sensor.counts.bytes.fetch_add(size as u64, SeqCst);
    if buffer[..size].contains(&b'!') {
        return -EPROTO;
    }
    0
}

/// The first tick starts the thread, when `start` can no longer fail.
unsafe extern "C" fn on_tick(_: *mut Loop, _: u64, userdata: *mut c_void) -> c_int {
    let sensor = unsafe { borrow(userdata) };
    sensor.counts.ticks.fetch_add(1, SeqCst);
    match sensor.start_thread() {
        Ok(()) => 0,
        Err(error) => -code_of(error),
    }
}

/// Runs once for each sample. The loop is NULL if it was closed or refused the post.
unsafe extern "C" fn on_sample(handle: *mut Loop, userdata: *mut c_void) -> c_int {
    let sample: Box<Sample> = unsafe { Box::from_raw(userdata.cast()) };
    let counts = &sample.sensor.counts;
    if handle.is_null() {
        counts.dropped.fetch_add(1, SeqCst);
    } else {
        counts.samples.fetch_add(1, SeqCst);
        counts.total.fetch_add(sample.value, SeqCst);
    }
    0
}

/// The only function that closes and joins. Called exactly once, for any kind of end.
unsafe extern "C" fn on_io_destroyed(userdata: *mut c_void) {
    let sensor: Arc<Sensor> = unsafe { Arc::from_raw(userdata.cast()) };
    if let Some(thread) = sensor.thread.lock().unwrap().take() {
        let _ = thread.join(); // no result: a panic aborts
    }
    drop(sensor.fifo.lock().unwrap().take());
    sensor.has_ended.store(true, SeqCst);
}

unsafe extern "C" fn on_timer_destroyed(userdata: *mut c_void) {
    drop::<Arc<Sensor>>(unsafe { Arc::from_raw(userdata.cast()) });
}

fn into_userdata(sensor: &Arc<Sensor>) -> *mut c_void {
    Arc::into_raw(Arc::clone(sensor)).cast_mut().cast()
}

/// Borrow an `Arc` that C keeps, for the call that got the pointer.
unsafe fn borrow(userdata: *mut c_void) -> ManuallyDrop<Arc<Sensor>> {
    ManuallyDrop::new(unsafe { Arc::from_raw(userdata.cast()) })
}

fn code_of(error: std::io::Error) -> c_int {
    error.raw_os_error().unwrap_or(EIO)
}

fn checked(result: c_int) -> Result<(), c_int> {
    if result < 0 {
        return Err(-result);
    }
    Ok(())
}

// ---- functions that Python calls, by ctypes ------------------------------------------

/// Returns 0, or -errno; on failure nothing is left behind.
///
/// # Safety
/// `home` is the content of a capsule named fdmux.loop. That loop must outlive the
/// sensor's owner, but not the sensor.
#[no_mangle]
pub unsafe extern "C" fn sensor_start(
    home: *const LoopHandle,
    path: *const c_char,
    ret_sensor: *mut *const Sensor,
) -> c_int {
    let LoopHandle { api, handle } = unsafe { &*home };
    if !api.is_usable() {
        return -EOPNOTSUPP; // a fdmux older than the header
    }
    let home = Home {
        api,
        handle: *handle,
    };
    match Sensor::start(home, unsafe { CStr::from_ptr(path) }) {
        Ok(sensor) => unsafe { *ret_sensor = Arc::into_raw(sensor) },
        Err(code) => return -code,
    }
    0
}

/// End the sensor; idempotent.
///
/// # Safety
/// This and the functions below take a pointer from `sensor_start` that was not released.
#[no_mangle]
pub unsafe extern "C" fn sensor_stop(sensor: *const Sensor) {
    unsafe { &*sensor }.stop();
}

/// Drop the owner's reference.
///
/// # Safety
/// As `sensor_stop`; call it once.
#[no_mangle]
pub unsafe extern "C" fn sensor_release(sensor: *const Sensor) {
    drop(unsafe { Arc::from_raw(sensor) });
}

/// # Safety
/// As `sensor_stop`.
#[no_mangle]
pub unsafe extern "C" fn sensor_has_ended(sensor: *const Sensor) -> c_int {
    c_int::from(unsafe { &*sensor }.has_ended.load(SeqCst))
}

/// Fill in bytes, ticks, samples, total, dropped.
///
/// # Safety
/// As `sensor_stop`; and `ret_counts` has room for five.
#[no_mangle]
pub unsafe extern "C" fn sensor_count(sensor: *const Sensor, ret_counts: *mut u64) {
    let counts = unsafe { &(*sensor).counts };
    let values = [
        &counts.bytes,
        &counts.ticks,
        &counts.samples,
        &counts.total,
        &counts.dropped,
    ];
    for (index, value) in values.iter().enumerate() {
        unsafe { *ret_counts.add(index) = value.load(SeqCst) };
    }
}

/// How many sensors are in memory.
#[no_mangle]
pub extern "C" fn sensor_live() -> c_int {
    LIVE.load(SeqCst) as c_int
}
