//! fdmux.h in Rust, written by hand; the assertions below compare it with the header.
//!
//! Members of the table that are not used here have the type `Unused`. Newer versions
//! only append to the table: its struct_size says how long it is.

use std::ffi::c_void;
use std::mem::{offset_of, size_of};
use std::os::raw::c_int;

/// Constants written by src/layout.c; setup.py sets the path.
#[allow(non_upper_case_globals)]
mod header {
    include!(env!("LAYOUT_RS"));
}

pub const READ: u32 = header::FDMUX_READ as u32;

/// struct fdmux_loop: opaque.
#[repr(C)]
pub struct Loop {
    _private: [u8; 0],
}

pub type IoFn = unsafe extern "C" fn(*mut Loop, u64, u32, *mut c_void) -> c_int;
pub type TimerFn = unsafe extern "C" fn(*mut Loop, u64, *mut c_void) -> c_int;
pub type PostFn = unsafe extern "C" fn(*mut Loop, *mut c_void) -> c_int;
pub type DestroyedFn = unsafe extern "C" fn(*mut c_void);
type Unused = *const c_void;

#[repr(C)]
pub struct IoOptions {
    pub struct_size: usize,
    pub fd: c_int,
    pub events: u32,
    pub callback: Option<IoFn>,
    pub userdata: *mut c_void,
    pub destroyed: Option<DestroyedFn>,
    pub tag: u32,
    pub flags: u32,
}

#[repr(C)]
pub struct TimerOptions {
    pub struct_size: usize,
    pub callback: Option<TimerFn>,
    pub userdata: *mut c_void,
    pub destroyed: Option<DestroyedFn>,
    pub tag: u32,
    pub flags: u32,
}

#[repr(C)]
pub struct Api {
    abi_major: u32,
    abi_minor: u32,
    struct_size: usize,
    loop_create: Unused,
    loop_destroy: Unused,
    loop_ref: Unused,
    loop_unref: Unused,
    loop_at_close: Unused,
    loop_fd: Unused,
    loop_next_deadline: Unused,
    loop_dispatch: Unused,
    loop_run: Unused,
    loop_stop: Unused,
    loop_wake: Unused,
    pub loop_now: unsafe extern "C" fn(*mut Loop) -> i64,
    loop_backend: Unused,
    loop_stats: Unused,
    loop_after_fork: Unused,
    loop_hold: Unused,
    loop_set_return: Unused,
    pub io_add: unsafe extern "C" fn(*mut Loop, *const IoOptions, *mut u64) -> c_int,
    io_update: Unused,
    io_replace_fd: Unused,
    io_fd: Unused,
    pub io_remove: unsafe extern "C" fn(*mut Loop, u64) -> c_int,
    pub timer_add:
        unsafe extern "C" fn(*mut Loop, *const TimerOptions, *mut u64) -> c_int,
    pub timer_arm: unsafe extern "C" fn(*mut Loop, u64, i64, i64) -> c_int,
    timer_arm_in: Unused,
    timer_cancel: Unused,
    pub timer_remove: unsafe extern "C" fn(*mut Loop, u64) -> c_int,
    pub post: unsafe extern "C" fn(*mut Loop, PostFn, *mut c_void) -> c_int,
}

/// struct fdmux_loop_handle: the content of a capsule named fdmux.loop.
#[repr(C)]
pub struct LoopHandle {
    pub api: &'static Api,
    pub handle: *mut Loop,
}

impl Api {
    /// Whether the running fdmux is as new as the header, or newer.
    pub fn is_usable(&self) -> bool {
        self.abi_major as usize == header::FDMUX_ABI_MAJOR
            && self.abi_minor as usize >= header::FDMUX_ABI_MINOR
            && self.struct_size >= header::SIZE_OF_API
    }
}

/// Stop the build if a member has another offset than in the header.
macro_rules! same_place {
    ($($type:ident . $member:ident = $constant:ident),* $(,)?) => {
        $(const _: () = assert!(offset_of!($type, $member) == header::$constant);)*
    };
}

const _: () = assert!(size_of::<IoOptions>() == header::SIZE_OF_IO_OPTIONS);
const _: () = assert!(size_of::<TimerOptions>() == header::SIZE_OF_TIMER_OPTIONS);
const _: () = assert!(size_of::<LoopHandle>() == header::SIZE_OF_LOOP_HANDLE);
const _: () = assert!(size_of::<Api>() <= header::SIZE_OF_API);
same_place! {
    Api.loop_now = OFFSET_fdmux_api__loop_now,
    Api.io_add = OFFSET_fdmux_api__io_add,
    Api.io_remove = OFFSET_fdmux_api__io_remove,
    Api.timer_add = OFFSET_fdmux_api__timer_add,
    Api.timer_arm = OFFSET_fdmux_api__timer_arm,
    Api.timer_remove = OFFSET_fdmux_api__timer_remove,
    Api.post = OFFSET_fdmux_api__post,
    LoopHandle.handle = OFFSET_fdmux_loop_handle__loop,
    IoOptions.fd = OFFSET_fdmux_io_options__fd,
    IoOptions.events = OFFSET_fdmux_io_options__events,
    IoOptions.callback = OFFSET_fdmux_io_options__fn,
    IoOptions.userdata = OFFSET_fdmux_io_options__userdata,
    IoOptions.destroyed = OFFSET_fdmux_io_options__destroyed,
    TimerOptions.callback = OFFSET_fdmux_timer_options__fn,
    TimerOptions.userdata = OFFSET_fdmux_timer_options__userdata,
    TimerOptions.destroyed = OFFSET_fdmux_timer_options__destroyed,
}
