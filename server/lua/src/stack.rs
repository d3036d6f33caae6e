//! Lua's stack during the call of a library function. All unsafe code of the crate is in this file
//! and in [`protected`]; the other modules use the methods of [`Stack`].
//!
//! The methods are thin: one call of Lua's C API each, because mlua's own values would cost a
//! reference in the registry per element of a table.
//!
//! # Invariants
//!
//! 1. **State.** `Stack::state` is the state that Lua passed to the running function. `'call` ends
//!    with that function, and only [`trampoline`] and [`build`] make a `Stack`.
//! 2. **Room.** A function pushes no more values than it has room for: Lua gives each call
//!    `LUA_MINSTACK` (20) free slots above the arguments, and [`Stack::check_stack`] reserves more.
//!    Lua asserts this if its C code is compiled with debug assertions (`LUA_USE_APICHECK`), as in
//!    the builds for tests.
//! 3. **Indices.** An index names a slot below the top, or an argument that may be absent where the
//!    method says so. Asserted as the room is.
//! 4. **Errors jump.** A Lua error, also one for a lack of memory, is a `longjmp` to the calling
//!    `pcall`. No frame between [`trampoline`] and a call of Lua may own a value with a destructor:
//!    the crate's functions use no `Vec`, `String`, `Box` or `Rc`, only slices, numbers and arrays.
//! 5. **Slices.** A slice with lifetime `'call` points into a string or a block of Lua. Lua does
//!    not move them, and frees none that is on the stack: the value stays there while the slice is
//!    used. A block is referred to by one slice at a time, which [`crate::buffer`] sees to.
//! 6. **Upvalues.** The upvalues of the functions are those that this crate gave them. Scripts
//!    reach upvalues only through Lua's `debug` library, which they must not have.
#![expect(unsafe_code, reason = "calls of Lua's C API")]

use mlua::{Lua, Table, ffi};
use std::ffi::{CStr, c_char, c_int};
use std::fmt::{self, Write as _};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

pub(crate) mod protected;

/// Number of settings of a library.
pub(crate) const SETTINGS: usize = 10;

/// Upvalue that holds the settings.
const SETTINGS_UPVALUE: c_int = 1;

/// Blocks of so many bytes are worth a collection of garbage when memory is short.
const LARGE_BLOCK: usize = 1 << 20;

/// Longest text of an error; longer ones are cut. The texts of this crate quote at most the name of
/// a type or one character.
const MAX_ERROR_TEXT: usize = 256;

/// Type of a Lua value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueType {
    /// No value at this index.
    None,
    /// `nil`.
    Nil,
    /// A boolean.
    Boolean,
    /// A pointer of C.
    LightUserdata,
    /// A number.
    Number,
    /// A string.
    String,
    /// A table.
    Table,
    /// A function, a userdata or a thread.
    Other,
}

/// The stack of a running library function.
#[derive(Clone, Copy)]
pub(crate) struct Stack<'call> {
    state: *mut ffi::lua_State,
    call: PhantomData<&'call ()>,
}

/// Runs `push_library`, which pushes one table, and returns the table. It captures references only.
pub(crate) fn build(lua: &Lua, push_library: impl FnOnce(Stack<'_>)) -> mlua::Result<Table> {
    let run = |state| push_library(Stack { state, call: PhantomData });
    // SAFETY: `exec_raw` calls `run` in protected mode with the room of a C function (invariant
    // 2), `run` captures nothing with a destructor (4), and what it leaves is taken as a `Table` or
    // fails.
    unsafe { lua.exec_raw((), run) }
}

/// The C function of `F`, a function without captures.
unsafe extern "C-unwind" fn trampoline<F>(state: *mut ffi::lua_State) -> c_int
where
    F: for<'call> Fn(Stack<'call>) -> c_int + Copy + 'static,
{
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: a reference to a value without size needs an aligned pointer only, and a value of `F`
    // exists: `push_function` was given one.
    let function = unsafe { NonNull::<F>::dangling().as_ref() };
    function(Stack { state, call: PhantomData })
}

/// Reading values.
impl<'call> Stack<'call> {
    /// Number of values on the stack.
    pub(crate) fn top(self) -> c_int {
        // SAFETY: invariant 1.
        unsafe { ffi::lua_gettop(self.state) }
    }

    /// Type of the value at `index`, which may be absent.
    pub(crate) fn value_type(self, index: c_int) -> ValueType {
        // SAFETY: invariants 1 and 3.
        match unsafe { ffi::lua_type(self.state, index) } {
            ffi::LUA_TNONE => ValueType::None,
            ffi::LUA_TNIL => ValueType::Nil,
            ffi::LUA_TBOOLEAN => ValueType::Boolean,
            ffi::LUA_TLIGHTUSERDATA => ValueType::LightUserdata,
            ffi::LUA_TNUMBER => ValueType::Number,
            ffi::LUA_TSTRING => ValueType::String,
            ffi::LUA_TTABLE => ValueType::Table,
            _ => ValueType::Other,
        }
    }

    /// Lua's name of the type of the value at `index`.
    pub(crate) fn type_name(self, index: c_int) -> &'static str {
        // SAFETY: invariants 1 and 3.
        let code = unsafe { ffi::lua_type(self.state, index) };
        // SAFETY: invariant 1, and `code` is a type.
        let name = unsafe { ffi::lua_typename(self.state, code) };
        // SAFETY: Lua's names are constants of its C code, which end with a null byte.
        unsafe { CStr::from_ptr(name) }.to_str().unwrap_or("?")
    }

    /// The value at `index` as a number; 0 if it is none.
    pub(crate) fn number(self, index: c_int) -> f64 {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_tonumber(self.state, index) }
    }

    /// Whether the value at `index` is a number, or a string that Lua converts to one.
    pub(crate) fn is_number(self, index: c_int) -> bool {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_isnumber(self.state, index) != 0 }
    }

    /// Whether the value at `index` is neither `nil` nor `false`.
    pub(crate) fn boolean(self, index: c_int) -> bool {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_toboolean(self.state, index) != 0 }
    }

    /// Whether the light userdata at `index` is the null pointer.
    pub(crate) fn is_null(self, index: c_int) -> bool {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_touserdata(self.state, index) }.is_null()
    }

    /// The bytes of the string at `index`. A number there is converted in place.
    pub(crate) fn bytes(self, index: c_int) -> &'call [u8] {
        let mut length = 0;
        // SAFETY: invariants 1 and 3.
        let bytes = unsafe { ffi::lua_tolstring(self.state, index, &raw mut length) };
        self.slice(bytes, length)
    }

    /// The bytes at `index` as Redis has them in errors and statuses: up to the first null byte.
    pub(crate) fn text(self, index: c_int) -> &'call [u8] {
        let bytes = self.bytes(index);
        &bytes[..memchr::memchr(0, bytes).unwrap_or(bytes.len())]
    }

    fn slice(self, bytes: *const c_char, length: usize) -> &'call [u8] {
        if bytes.is_null() {
            return &[];
        }
        // SAFETY: Lua returned the pointer and the length of a string, which invariant 5 keeps.
        unsafe { std::slice::from_raw_parts(bytes.cast(), length) }
    }

    /// Pops a key and pushes the next key of the table at `index` and its value. Returns false,
    /// with nothing pushed, after the last key.
    pub(crate) fn next(self, index: c_int) -> bool {
        // SAFETY: invariants 1 to 3; a table is at `index`, and the key came from this method.
        unsafe { ffi::lua_next(self.state, index) != 0 }
    }

    /// Pushes element `key` of the table at `index`, without metamethods.
    pub(crate) fn push_element(self, index: c_int, key: c_int) {
        // SAFETY: invariants 1 to 3; a table is at `index`.
        unsafe { ffi::lua_rawgeti_(self.state, index, key) };
    }

    /// Whether the value at the top has a metatable with a true field `name`.
    pub(crate) fn has_metatable_flag(self, name: &CStr) -> bool {
        // SAFETY: invariants 1 to 3.
        if unsafe { ffi::lua_getmetatable(self.state, -1) } == 0 {
            return false;
        }
        self.push_bytes(name.to_bytes());
        // SAFETY: invariants 1 to 3: the metatable is below the name.
        unsafe { ffi::lua_rawget_(self.state, -2) };
        let flag = self.boolean(-1);
        self.pop(2);
        flag
    }
}

/// Pushing, popping and storing values. Each of these may raise an error for a lack of memory.
impl<'call> Stack<'call> {
    /// Reserves room for `count` more values. Returns false at Lua's limit of 8,000 slots per call.
    pub(crate) fn check_stack(self, count: c_int) -> bool {
        // SAFETY: invariant 1.
        unsafe { ffi::lua_checkstack(self.state, count) != 0 }
    }

    /// As [`Self::check_stack`]; raises `stack overflow (what)` at the limit.
    pub(crate) fn require_stack(self, count: c_int, what: &str) {
        if !self.check_stack(count) {
            self.raise(format_args!("stack overflow ({what})"));
        }
    }

    /// Sets the number of values on the stack.
    pub(crate) fn set_top(self, top: c_int) {
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_settop(self.state, top) };
    }

    /// Pops `count` values.
    pub(crate) fn pop(self, count: c_int) {
        self.set_top(-count - 1);
    }

    /// Moves the top to `index`; the values from there on move up.
    pub(crate) fn insert(self, index: c_int) {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_insert(self.state, index) };
    }

    /// Moves the top to `index`, whose value is dropped.
    pub(crate) fn replace(self, index: c_int) {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_replace(self.state, index) };
    }

    /// Pushes `nil`.
    pub(crate) fn push_nil(self) {
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_pushnil(self.state) };
    }

    /// Pushes a boolean.
    pub(crate) fn push_boolean(self, value: bool) {
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_pushboolean(self.state, c_int::from(value)) };
    }

    /// Pushes a number.
    pub(crate) fn push_number(self, value: f64) {
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_pushnumber(self.state, value) };
    }

    /// Pushes a string.
    pub(crate) fn push_bytes(self, bytes: &[u8]) {
        // SAFETY: invariants 1 and 2; Lua copies the bytes.
        unsafe { ffi::lua_pushlstring_(self.state, bytes.as_ptr().cast(), bytes.len()) };
    }

    /// Pushes the null pointer.
    pub(crate) fn push_null(self) {
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_pushlightuserdata(self.state, ptr::null_mut()) };
    }

    /// Pushes the value at `index` again.
    pub(crate) fn push_copy(self, index: c_int) {
        // SAFETY: invariants 1 to 3.
        unsafe { ffi::lua_pushvalue(self.state, index) };
    }

    /// Pushes an empty table.
    pub(crate) fn push_table(self) {
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_createtable(self.state, 0, 0) };
    }

    /// Pops a value and a key below it and stores them in the table below both. Raises an error if
    /// the key is `nil` or not a number.
    pub(crate) fn set_entry(self) {
        // SAFETY: invariants 1 and 3; the table is below key and value.
        unsafe { ffi::lua_rawset(self.state, -3) };
    }

    /// Pops a value and stores it as element `key` of the table below.
    pub(crate) fn set_element(self, key: c_int) {
        // SAFETY: invariants 1 and 3; the table is below the value.
        unsafe { ffi::lua_rawseti_(self.state, -2, key) };
    }

    /// Pops a value and stores it as field `name` of the table below, which has no metatable.
    pub(crate) fn set_field(self, name: &CStr) {
        // SAFETY: invariants 1 and 3; the table is below the value.
        unsafe { ffi::lua_setfield(self.state, -2, name.as_ptr()) };
    }

    /// Pops a table and makes it the metatable of the table below.
    pub(crate) fn set_metatable(self) {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_setmetatable(self.state, -2) };
    }

    /// Pops `upvalues` values and pushes `function` with them as its upvalues.
    pub(crate) fn push_function<F>(self, function: F, upvalues: c_int)
    where
        F: for<'any> Fn(Stack<'any>) -> c_int + Copy + 'static,
    {
        let _: F = function;
        // SAFETY: invariants 1 to 3; `trampoline` obeys the rules of a C function.
        unsafe { ffi::lua_pushcclosure(self.state, trampoline::<F>, upvalues) };
    }

    /// Pushes an upvalue of the running function.
    pub(crate) fn push_upvalue(self, upvalue: c_int) {
        self.push_copy(ffi::lua_upvalueindex(upvalue));
    }

    /// Pops a value and makes it an upvalue of the running function.
    pub(crate) fn set_upvalue(self, upvalue: c_int) {
        self.replace(ffi::lua_upvalueindex(upvalue));
    }

    /// The length of a string, a table's list or a block at `index`.
    pub(crate) fn length(self, index: c_int) -> usize {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_objlen(self.state, index) }
    }

    /// Pushes a block of `length` zero bytes.
    pub(crate) fn push_block(self, length: usize) -> &'call mut [u8] {
        if length >= LARGE_BLOCK {
            // The block becomes a string of the same length.
            self.make_room(length.saturating_mul(2));
        }
        // SAFETY: invariants 1 and 2.
        let block = unsafe { ffi::lua_newuserdata(self.state, length) }.cast::<u8>();
        // SAFETY: Lua allocated `length` bytes at `block`.
        unsafe { ptr::write_bytes(block, 0, length) };
        // SAFETY: the bytes are initialized, new, and kept by invariant 5.
        unsafe { std::slice::from_raw_parts_mut(block, length) }
    }

    /// The block at the top, or `None` if another value is there.
    pub(crate) fn block(self) -> Option<&'call mut [u8]> {
        // SAFETY: invariants 1 and 3.
        if unsafe { ffi::lua_type(self.state, -1) } != ffi::LUA_TUSERDATA {
            return None;
        }
        let length = self.length(-1);
        // SAFETY: invariants 1 and 3.
        let block = unsafe { ffi::lua_touserdata(self.state, -1) }.cast::<u8>();
        // SAFETY: `push_block` made the block (invariant 6) and initialized it; invariant 5.
        Some(unsafe { std::slice::from_raw_parts_mut(block, length) })
    }
}

/// Settings, which the functions of one library share as their first upvalue.
impl Stack<'_> {
    /// Pushes settings for use as an upvalue.
    pub(crate) fn push_settings(self, settings: [i32; SETTINGS]) {
        let size = size_of::<[i32; SETTINGS]>();
        // SAFETY: invariants 1 and 2.
        let block = unsafe { ffi::lua_newuserdata(self.state, size) };
        // SAFETY: Lua allocated `size` bytes, aligned for all types of C.
        unsafe { block.cast::<[i32; SETTINGS]>().write(settings) };
    }

    /// The settings of the running function.
    pub(crate) fn settings(self) -> [i32; SETTINGS] {
        // SAFETY: `settings_block` returns initialized settings.
        unsafe { self.settings_block().read() }
    }

    /// Changes the settings of the running function and of all others that share them.
    pub(crate) fn store_settings(self, settings: [i32; SETTINGS]) {
        // SAFETY: `settings_block` returns a block that no reference points to.
        unsafe { self.settings_block().write(settings) };
    }

    fn settings_block(self) -> *mut [i32; SETTINGS] {
        let upvalue = ffi::lua_upvalueindex(SETTINGS_UPVALUE);
        // SAFETY: invariant 1; `push_settings` made the upvalue (invariant 6).
        unsafe { ffi::lua_touserdata(self.state, upvalue) }.cast()
    }
}

/// Arguments, with the errors of Lua's auxiliary library.
impl<'call> Stack<'call> {
    /// A string argument; a number is converted in place.
    pub(crate) fn bytes_argument(self, argument: c_int) -> &'call [u8] {
        let mut length = 0;
        // SAFETY: invariants 1 and 4.
        let bytes = unsafe { ffi::luaL_checklstring(self.state, argument, &raw mut length) };
        self.slice(bytes, length)
    }

    /// A number argument; a string is converted.
    pub(crate) fn number_argument(self, argument: c_int) -> f64 {
        // SAFETY: invariants 1 and 4.
        unsafe { ffi::luaL_checknumber(self.state, argument) }
    }

    /// As [`Self::number_argument`], converted as C does.
    pub(crate) fn integer_argument(self, argument: c_int) -> i64 {
        // SAFETY: invariants 1 and 4.
        let value = unsafe { ffi::luaL_checkinteger(self.state, argument) };
        value as i64
    }

    /// As [`Self::integer_argument`]; `default` if the argument is absent or `nil`.
    pub(crate) fn optional_integer(self, argument: c_int, default: i64) -> i64 {
        match self.value_type(argument) {
            ValueType::None | ValueType::Nil => default,
            _ => self.integer_argument(argument),
        }
    }

    /// The position in `names` of a string argument, of at most three names.
    pub(crate) fn option_argument(self, argument: c_int, names: &[&CStr]) -> c_int {
        let mut list = [ptr::null(); 4];
        for (entry, name) in list[..3].iter_mut().zip(names) {
            *entry = name.as_ptr();
        }
        // SAFETY: invariants 1 and 4; `list` ends with a null pointer.
        unsafe { ffi::luaL_checkoption(self.state, argument, ptr::null(), list.as_ptr()) }
    }

    /// Raises an error with the position of the caller before its text, as `luaL_error` does.
    pub(crate) fn raise(self, text: fmt::Arguments<'_>) -> ! {
        self.raise_text(&ErrorText::new(text))
    }

    /// As [`Self::raise`], with a text that was made before.
    pub(crate) fn raise_text(self, text: &ErrorText) -> ! {
        // The error needs room, also at the limit of the stack.
        self.set_top(0);
        // SAFETY: invariants 1 and 4; both texts end with a null byte.
        unsafe { ffi::luaL_error(self.state, c"%s".as_ptr(), text.as_ptr()) };
        unreachable!("luaL_error returned")
    }

    /// Raises `bad argument #argument to 'function' (text)`, as `luaL_argerror` does.
    pub(crate) fn raise_argument(self, argument: c_int, text: &ErrorText) -> ! {
        self.set_top(0);
        // SAFETY: invariants 1 and 4; the text ends with a null byte.
        unsafe { ffi::luaL_argerror(self.state, argument, text.as_ptr()) };
        unreachable!("luaL_argerror returned")
    }

    /// As [`Self::raise_argument`] unless `condition` holds.
    pub(crate) fn check_argument(self, condition: bool, argument: c_int, text: &str) {
        if !condition {
            self.raise_argument(argument, &ErrorText::new(format_args!("{text}")));
        }
    }
}

/// Text of an error: bytes other than null, and a null byte.
pub(crate) struct ErrorText {
    bytes: [u8; MAX_ERROR_TEXT],
    length: usize,
}

impl ErrorText {
    /// Formats a text.
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Self {
        let mut built = Self { bytes: [0; MAX_ERROR_TEXT], length: 0 };
        // A text that is too long is cut, without an error.
        let _ = built.write_fmt(text);
        built
    }

    /// Appends bytes, up to the first null byte.
    pub(crate) fn append(mut self, bytes: &[u8]) -> Self {
        self.push(bytes);
        self
    }

    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes.iter().take_while(|&&byte| byte != 0) {
            if self.length < MAX_ERROR_TEXT - 1 {
                self.bytes[self.length] = byte;
                self.length += 1;
            }
        }
    }

    fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }
}

impl fmt::Write for ErrorText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}
