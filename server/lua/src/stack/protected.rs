//! The Lua state of an interpreter: protected calls from Rust, compiled code, hooks, and the slot
//! that the functions of the table `redis` reach.
//!
//! # Invariants
//!
//! In addition to those of [`super`]:
//!
//! 7. **Main state.** `State::state` belongs to `State::lua` and lives as long. No other code runs
//!    on it while a method of `State` does.
//! 8. **Slot.** The upvalue [`SLOT_UPVALUE`] of functions that [`Stack::push_slot_function`] pushes
//!    is the address of `State::slot`, which is boxed and outlives the state.
//! 9. **Host.** The slot has a host only while [`State::with_host`] runs, which borrows the host.
//!    [`HostCell::with`] takes the host out, so that there is one reference at a time.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};

use mlua::{Function, IntoLua, IntoLuaMulti, Lua, LuaOptions, StdLib, Table, ffi};

use super::{ErrorText, Stack, ValueType};
use crate::interpreter::{Host, Slot};
use std::marker::PhantomData;

/// Upvalue with the address of the slot.
const SLOT_UPVALUE: c_int = 1;
/// Instructions between two calls of the hook.
const HOOK_INTERVAL: c_int = 10_000;

/// Lua's own pause of the collector: it begins when the memory has grown to so many percent of what
/// was live, and its own pace, in percent of that at which memory is allocated.
const DEFAULT_PAUSE: c_int = 200;
const DEFAULT_STEPS: c_int = 200;
/// The pause while the state takes less than [`MOST_UNCOLLECTED_KIB`] or a 32nd of its limit.
const LONG_PAUSE: c_int = 1000;
const MOST_UNCOLLECTED_KIB: c_int = 8 << 10;

/// The text of a failed allocation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutOfMemory;

/// A value that Lua keeps for Rust.
#[derive(Debug)]
pub(crate) struct Reference(c_int);

/// The host of the run, if any runs.
#[derive(Default)]
pub(crate) struct HostCell(Cell<Option<NonNull<dyn Host>>>);

impl HostCell {
    /// Calls `act` with the host; `None` outside a run.
    pub fn with<R>(&self, act: impl FnOnce(&mut dyn Host) -> R) -> Option<R> {
        let mut host = self.0.take()?;
        // SAFETY: invariant 9.
        let result = act(unsafe { host.as_mut() });
        self.0.set(Some(host));
        Some(result)
    }
}

/// A Lua state and what belongs to it.
pub(crate) struct State {
    lua: Lua,
    state: *mut ffi::lua_State,
    slot: Box<Slot>,
    error_handler: Reference,
    script_globals: Reference,
    function_globals: Reference,
    load_globals: Reference,
    field_names: Reference,
    refusal: Reference,
}

impl State {
    /// A state with Lua's libraries as they are.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> mlua::Result<Self> {
        let libraries = StdLib::STRING | StdLib::TABLE | StdLib::MATH;
        let options = LuaOptions::new().catch_rust_panics(false);
        let lua = Lua::new_with(libraries, options)?;
        let mut state = ptr::null_mut();
        // SAFETY: the closure leaves the stack alone.
        unsafe { lua.exec_raw::<()>((), |raw| state = raw)? };
        let mut this = Self {
            lua: lua.clone(),
            state,
            slot: Box::new(Slot::new(lua.clone())),
            error_handler: Reference(ffi::LUA_NOREF),
            script_globals: Reference(ffi::LUA_NOREF),
            function_globals: Reference(ffi::LUA_NOREF),
            load_globals: Reference(ffi::LUA_NOREF),
            field_names: Reference(ffi::LUA_NOREF),
            refusal: Reference(ffi::LUA_NOREF),
        };
        let mut handler = ffi::LUA_NOREF;
        let made = this.protect(|stack| {
            stack.push_function(handle_error, 0);
            handler = stack.reference();
            stack.keep_error_texts();
        });
        made.map_err(|OutOfMemory| mlua::Error::MemoryError("no error handler".to_owned()))?;
        this.error_handler = Reference(handler);
        // SAFETY: invariant 7; `hook` obeys the rules of a hook.
        unsafe { ffi::lua_sethook(state, Some(hook), ffi::LUA_MASKCOUNT, HOOK_INTERVAL) };
        let address = ptr::from_ref::<Slot>(&this.slot).cast_mut().cast::<c_void>();
        let stored = this.protect(|stack| {
            stack.push_light(registry_key());
            stack.push_light(address);
            stack.set_registry();
        });
        stored.map_err(|OutOfMemory| mlua::Error::MemoryError("no registry".to_owned()))?;
        Ok(this)
    }

    pub const fn lua(&self) -> &Lua {
        &self.lua
    }

    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    pub const fn error_handler(&self) -> &Reference {
        &self.error_handler
    }

    /// The real globals of scripts, where their keys and arguments are.
    pub const fn script_globals(&self) -> &Reference {
        &self.script_globals
    }

    /// The names of the fields that reply tables have, as strings: reading a field then allocates
    /// nothing.
    pub const fn field_names(&self) -> &Reference {
        &self.field_names
    }

    pub fn set_memory_limit(&self, limit: usize) {
        self.lua.set_memory_limit(limit).ok();
        self.slot.memory_limit.set(limit);
    }

    pub fn used_memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// The globals of functions of libraries.
    pub const fn function_globals(&self) -> &Reference {
        &self.function_globals
    }

    /// The globals of a library while its code runs.
    pub const fn load_globals(&self) -> &Reference {
        &self.load_globals
    }

    /// The function that refuses new fields of read-only tables.
    pub const fn refusal(&self) -> &Reference {
        &self.refusal
    }

    /// Keeps what the sandbox has made.
    pub fn keep(
        &mut self,
        script_globals: &Table,
        function_globals: &Table,
        load_globals: &Table,
        field_names: &Table,
        refusal: &Function,
    ) -> mlua::Result<()> {
        self.script_globals = self.keep_value(script_globals)?;
        self.function_globals = self.keep_value(function_globals)?;
        self.load_globals = self.keep_value(load_globals)?;
        self.field_names = self.keep_value(field_names)?;
        self.refusal = self.keep_value(refusal)?;
        Ok(())
    }

    /// A reference to a value.
    fn keep_value(&self, value: impl IntoLua) -> mlua::Result<Reference> {
        let mut kept = ffi::LUA_NOREF;
        let keep = |raw| kept = Stack { state: raw, call: PhantomData }.reference();
        // SAFETY: `exec_raw` pushes the value and calls `keep` in protected mode; `reference` pops.
        unsafe { self.lua.exec_raw::<()>(value.into_lua(&self.lua)?, keep)? };
        Ok(Reference(kept))
    }

    /// Drops a reference.
    pub fn release(&self, reference: Reference) {
        // An error here has no handler.
        self.slot.without_limit(|| {
            // SAFETY: invariant 7; with memory for the list of free references nothing is raised.
            unsafe { ffi::luaL_unref(self.state, ffi::LUA_REGISTRYINDEX, reference.0) };
        });
    }

    /// Calls `act` in protected mode, with an empty stack, and drops what it leaves there.
    ///
    /// # Errors
    /// Lua has no memory; `act` has been left where it asked for some.
    pub fn protect<F: FnMut(Stack<'_>)>(&self, mut act: F) -> Result<(), OutOfMemory> {
        let context = (&raw mut act).cast::<c_void>();
        // SAFETY: invariant 7; `enter` gets the address of an `F`, which lives until it returns.
        let status = unsafe { ffi::lua_cpcall(self.state, enter::<F>, context) };
        if status == 0 {
            return Ok(());
        }
        // SAFETY: invariant 7; a failed call leaves an error.
        unsafe { ffi::lua_settop(self.state, -2) };
        Err(OutOfMemory)
    }

    /// Compiles code; its globals are those of the state.
    ///
    /// # Errors
    /// The text of the error.
    pub fn load(&self, source: &[u8], name: &CStr) -> Result<Reference, Vec<u8>> {
        let mut result = Err(Vec::new());
        let done = self.protect(|stack| {
            result = match stack.load(source, name) {
                true => Ok(Reference(stack.reference())),
                false => Err(stack.bytes(-1).to_vec()),
            };
        });
        match done {
            Ok(()) => result,
            Err(OutOfMemory) => Err(b"not enough memory".to_vec()),
        }
    }

    /// Lets the functions of the table `redis` reach `host` while `act` runs.
    pub fn with_host<R>(&self, host: &mut dyn Host, act: impl FnOnce() -> R) -> R {
        let host: NonNull<dyn Host + '_> = NonNull::from(host);
        // SAFETY: the lifetime of the host, which ends after the pointer is removed below
        // (invariant 9).
        let host =
            unsafe { std::mem::transmute::<NonNull<dyn Host + '_>, NonNull<dyn Host>>(host) };
        self.slot.host.0.set(Some(host));
        let result = act();
        self.slot.host.0.set(None);
        result
    }
}

/// A function that `push` makes of the values on the stack, its upvalues.
pub(crate) fn make_function(
    lua: &Lua,
    upvalues: impl IntoLuaMulti,
    push: fn(Stack<'_>),
) -> mlua::Result<Function> {
    let make = |state| push(Stack { state, call: PhantomData });
    // SAFETY: `exec_raw` pushes the upvalues and calls `make` in protected mode, which captures a
    // function pointer only; what it leaves is taken as a function or fails.
    unsafe { lua.exec_raw(upvalues, make) }
}

/// What `of` finds in a cell, without a guard: an error of Lua would jump over the guard, which
/// would keep the cell borrowed for ever.
pub(crate) fn unguarded<T, R: ?Sized>(cell: &RefCell<T>, of: impl FnOnce(&T) -> &R) -> &R {
    assert!(cell.try_borrow_mut().is_ok(), "the cell is borrowed");
    // SAFETY: nothing borrows the cell now, and only `redis.call` does so mutably, which ends the
    // use of an earlier reply: it is pushed before another command is called.
    of(unsafe { &*cell.as_ptr() })
}

/// A key in the registry that no other code uses: the address of a static.
fn registry_key() -> *mut c_void {
    static KEY: u8 = 0;
    (&raw const KEY).cast_mut().cast()
}

/// Runs the closure of [`State::protect`].
unsafe extern "C-unwind" fn enter<F: FnMut(Stack<'_>)>(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: `protect` passes the address as the only argument.
    let act = unsafe { ffi::lua_touserdata(state, 1) }.cast::<F>();
    // SAFETY: it is that of a closure which nothing else uses meanwhile.
    let act = unsafe { &mut *act };
    let stack = Stack { state, call: PhantomData };
    stack.set_top(0);
    act(stack);
    0
}

/// Asks the host whether the script may go on.
unsafe extern "C-unwind" fn hook(state: *mut ffi::lua_State, _: *mut ffi::lua_Debug) {
    let stack = Stack { state, call: PhantomData };
    stack.poll();
}

/// The error handler of scripts: makes the error a table, and adds where it was raised.
fn handle_error(stack: Stack<'_>) -> c_int {
    const ERROR: c_int = 1;
    if stack.value_type(ERROR) != ValueType::Table {
        stack.push_table();
        stack.push_bytes(b"ERR ");
        match stack.value_type(ERROR) {
            ValueType::String | ValueType::Number => stack.push_copy(ERROR),
            ValueType::Nil => stack.push_bytes(b"nil"),
            ValueType::Boolean => {
                let text: &[u8] = if stack.boolean(ERROR) { b"true" } else { b"false" };
                stack.push_bytes(text);
            }
            _ => stack.push_bytes(stack.type_name(ERROR).as_bytes()),
        }
        stack.concatenate(2);
        stack.set_field(c"err");
        stack.replace(ERROR);
    }
    if let Some((source, line)) = stack.caller_position() {
        stack.push_copy(ERROR);
        stack.push_bytes(source.to_bytes());
        stack.set_raw_field(c"source");
        stack.push_number(f64::from(line));
        stack.set_raw_field(c"line");
        stack.pop(1);
    }
    stack.push_copy(ERROR);
    1
}

/// What interpreters need beside the methods of [`super`].
impl<'call> Stack<'call> {
    /// Pops a value and keeps it.
    fn reference(self) -> c_int {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::luaL_ref(self.state, ffi::LUA_REGISTRYINDEX) }
    }

    /// Pops a value and keeps it; see [`State::release`].
    pub(crate) fn keep(self) -> Reference {
        Reference(self.reference())
    }

    /// Pushes a value that is kept.
    pub(crate) fn push_reference(self, reference: &Reference) {
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_rawgeti_(self.state, ffi::LUA_REGISTRYINDEX, reference.0) };
    }

    /// Pushes a table with room for `length` elements.
    pub(crate) fn push_table_for(self, length: usize) {
        let length = c_int::try_from(length).unwrap_or(c_int::MAX);
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_createtable(self.state, length, 0) };
    }

    /// Pushes an address.
    pub(crate) fn push_light(self, address: *mut c_void) {
        // SAFETY: invariants 1 and 2.
        unsafe { ffi::lua_pushlightuserdata(self.state, address) };
    }

    /// Pops a value and a key and stores them in the registry.
    fn set_registry(self) {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_rawset(self.state, ffi::LUA_REGISTRYINDEX) };
    }

    /// Pushes field `name` of the table at `index`, without metamethods.
    pub(crate) fn push_raw_field(self, index: c_int, name: &CStr) {
        self.push_bytes(name.to_bytes());
        // SAFETY: invariants 1 to 3; a table is at `index`, which is positive.
        unsafe { ffi::lua_rawget_(self.state, index) };
    }

    /// Replaces the key at the top by its value in the table at `index`, without metamethods.
    pub(crate) fn raw_get(self, index: c_int) {
        // SAFETY: invariants 1 and 3; a table is at `index`.
        unsafe { ffi::lua_rawget_(self.state, index) };
    }

    /// Pops a value and a key below it, and stores the value in the table at `index`, without
    /// metamethods.
    pub(crate) fn raw_set(self, index: c_int) {
        // SAFETY: invariants 1, 3 and 4; a table is at `index`.
        unsafe { ffi::lua_rawset(self.state, index) };
    }

    /// Pops a value and stores it as field `name` of the table below, without metamethods.
    pub(crate) fn set_raw_field(self, name: &CStr) {
        self.push_bytes(name.to_bytes());
        self.insert(-2);
        // SAFETY: invariants 1 and 3; the table is below key and value.
        unsafe { ffi::lua_rawset(self.state, -3) };
    }

    /// Pops `count` strings and numbers and pushes them as one string.
    pub(crate) fn concatenate(self, count: c_int) {
        // SAFETY: invariants 1 to 3.
        unsafe { ffi::lua_concat(self.state, count) };
    }

    /// Pops a function and `arguments` values above it and calls it. True: `results` values are
    /// pushed. False: the error, as the function at `handler` returned it; 0: no handler.
    pub(crate) fn call_protected(self, arguments: c_int, results: c_int, handler: c_int) -> bool {
        // SAFETY: invariants 1 to 3.
        unsafe { ffi::lua_pcall(self.state, arguments, results, handler) == ffi::LUA_OK }
    }

    /// Pops a function and `arguments` values above it, calls it and pushes `results` values.
    pub(crate) fn call_function(self, arguments: c_int, results: c_int) {
        // SAFETY: invariants 1 to 4.
        unsafe { ffi::lua_call(self.state, arguments, results) };
    }

    /// Raises the value at the top.
    pub(crate) fn raise_top(self) -> ! {
        // SAFETY: invariants 1 and 4.
        unsafe { ffi::lua_error(self.state) }
    }

    /// Raises a table with the text as `err`, as the functions of `redis` do.
    pub(crate) fn raise_table(self, text: &[u8]) -> ! {
        self.push_error_table(text);
        self.raise_top()
    }

    /// Pushes a table with the text as `err`.
    pub(crate) fn push_error_table(self, text: &[u8]) {
        self.push_table();
        self.push_bytes(text);
        self.set_field(c"err");
    }

    /// Compiles code and pushes the function; false: the error. Code that was compiled before is a
    /// syntax error. No garbage is collected meanwhile: Lua's parser does not hold the name of the
    /// chunk.
    pub(crate) fn load(self, source: &[u8], name: &CStr) -> bool {
        // The first byte decides whether Lua reads text or compiled code.
        let is_compiled = source.first() == ffi::LUA_SIGNATURE.first();
        let source = if is_compiled { b" \x1b" } else { source };
        // SAFETY: invariant 1.
        unsafe { ffi::lua_gc(self.state, ffi::LUA_GCSTOP, 0) };
        let (bytes, length) = (source.as_ptr().cast(), source.len());
        // SAFETY: invariants 1 and 2; errors are returned.
        let status = unsafe { ffi::luaL_loadbuffer(self.state, bytes, length, name.as_ptr()) };
        // SAFETY: invariant 1.
        unsafe { ffi::lua_gc(self.state, ffi::LUA_GCRESTART, 0) };
        status == ffi::LUA_OK
    }

    /// Keeps texts that Lua makes where an error of memory has no handler: resuming a coroutine.
    fn keep_error_texts(self) {
        const TEXTS: [&[u8]; 3] = [
            b"C stack overflow",
            b"cannot resume non-suspended coroutine",
            b"error in error handling",
        ];
        for text in TEXTS {
            self.push_bytes(text);
            self.reference();
        }
    }

    /// Makes room for `count` values on the stack of the coroutine at `index`. Without memory Lua
    /// would end the process.
    pub(crate) fn grow_coroutine(self, index: c_int, count: c_int) {
        // SAFETY: invariants 1 and 3.
        let coroutine = unsafe { ffi::lua_tothread(self.state, index) };
        let Some(slot) = self.slot_of_state().filter(|_| !coroutine.is_null()) else { return };
        slot.without_limit(|| {
            // SAFETY: a coroutine of this state, which is on the stack.
            unsafe { ffi::lua_checkstack(coroutine, count) };
        });
    }

    /// Notes that the running script calls `collectgarbage`.
    pub(crate) fn note_collector_change(self) {
        if let Some(slot) = self.slot_of_state() {
            slot.collector_is_changed.set(true);
        }
    }

    /// Sets the collector up before a script runs: as if no script had changed it.
    pub(crate) fn reset_collector(self, slot: &Slot) {
        if slot.collector_is_changed.take() {
            // SAFETY: invariant 1.
            unsafe { ffi::lua_gc(self.state, ffi::LUA_GCRESTART, 0) };
            // SAFETY: invariant 1.
            unsafe { ffi::lua_gc(self.state, ffi::LUA_GCSETSTEPMUL, DEFAULT_STEPS) };
            slot.collector_pause.set(0);
        }
        self.set_collector_pause(slot);
    }

    /// Lets little garbage wait longer for its collection: a collection looks at every live value,
    /// mostly those of the environment.
    fn set_collector_pause(self, slot: &Slot) {
        // SAFETY: invariant 1.
        let kib = unsafe { ffi::lua_gc(self.state, ffi::LUA_GCCOUNT, 0) };
        let most = match slot.memory_limit.get() {
            0 => MOST_UNCOLLECTED_KIB,
            limit => MOST_UNCOLLECTED_KIB.min(c_int::try_from(limit >> 15).unwrap_or(c_int::MAX)),
        };
        let pause = if kib < most { LONG_PAUSE } else { DEFAULT_PAUSE };
        if slot.collector_pause.replace(pause) != pause {
            // SAFETY: invariant 1.
            unsafe { ffi::lua_gc(self.state, ffi::LUA_GCSETPAUSE, pause) };
        }
    }

    /// Collects all garbage.
    pub(crate) fn collect_garbage(self) {
        // SAFETY: invariants 1 and 4.
        unsafe { ffi::lua_gc(self.state, ffi::LUA_GCCOLLECT, 0) };
    }

    /// Chunk name and line of the Lua function that called the function which raised the error:
    /// for an error handler.
    fn caller_position(self) -> Option<(&'call CStr, c_int)> {
        for level in 1..=2 {
            // SAFETY: a struct of numbers, pointers and arrays of bytes.
            let mut record = unsafe { std::mem::zeroed::<ffi::lua_Debug>() };
            // SAFETY: invariant 1.
            if unsafe { ffi::lua_getstack(self.state, level, &raw mut record) } == 0 {
                return None;
            }
            // SAFETY: invariant 1; `lua_getstack` has filled in the record.
            unsafe { ffi::lua_getinfo(self.state, c"Sl".as_ptr(), &raw mut record) };
            // SAFETY: both texts are constants or belong to the running function.
            let (what, source) = unsafe { (record.what, CStr::from_ptr(record.source)) };
            // SAFETY: as above.
            let is_native = unsafe { CStr::from_ptr(what) } == c"C";
            if !is_native || level == 2 {
                return Some((source, record.currentline));
            }
        }
        None
    }

    /// Pushes a function that reaches the slot.
    pub(crate) fn push_slot_function<F>(self, slot: &Slot, function: F)
    where
        F: for<'any> Fn(Stack<'any>) -> c_int + Copy + 'static,
    {
        self.push_light(ptr::from_ref(slot).cast_mut().cast());
        self.push_function(function, SLOT_UPVALUE);
    }

    /// The slot of the running function.
    pub(crate) fn slot(self) -> &'call Slot {
        let upvalue = ffi::lua_upvalueindex(SLOT_UPVALUE);
        // SAFETY: invariant 1.
        let address = unsafe { ffi::lua_touserdata(self.state, upvalue) };
        // SAFETY: invariant 8.
        unsafe { &*address.cast::<Slot>() }
    }

    /// The slot of the state; `None` in a state without an interpreter. Needs room for a value.
    fn slot_of_state(self) -> Option<&'call Slot> {
        self.push_light(registry_key());
        self.raw_get(ffi::LUA_REGISTRYINDEX);
        // SAFETY: invariant 1.
        let address = unsafe { ffi::lua_touserdata(self.state, -1) };
        self.pop(1);
        // SAFETY: null, or the address that `State::new` stored (invariant 8).
        unsafe { address.cast::<Slot>().as_ref() }
    }

    /// Collects garbage before `bytes` are allocated in one piece, if the memory would come near
    /// its limit. Lua 5.1 fails at the limit, however much garbage there is.
    pub(crate) fn make_room(self, bytes: usize) {
        let limit = self.slot_of_state().map_or(0, |slot| slot.memory_limit.get());
        // SAFETY: invariant 1.
        let kib = unsafe { ffi::lua_gc(self.state, ffi::LUA_GCCOUNT, 0) };
        let used = usize::try_from(kib).unwrap_or(0) << 10;
        if limit > 0 && used.saturating_add(bytes) > limit / 2 {
            self.collect_garbage();
        }
    }

    /// Asks the host whether the script may go on; raises an error if not. Afterwards every
    /// instruction asks, so that no `pcall` keeps the script alive.
    pub(crate) fn poll(self) {
        let Some(slot) = self.slot_of_state() else { return };
        self.set_collector_pause(slot);
        if let Some(Err(text)) = slot.host.with(|host| host.poll()) {
            // SAFETY: invariant 1.
            unsafe { ffi::lua_sethook(self.state, Some(hook), ffi::LUA_MASKCOUNT, 1) };
            slot.refusal.set(Some(text));
            self.raise_table(text.as_bytes());
        }
    }

    /// Calls the hook at the usual interval again.
    pub(crate) fn reset_hook(self) {
        // SAFETY: invariant 1.
        unsafe { ffi::lua_sethook(self.state, Some(hook), ffi::LUA_MASKCOUNT, HOOK_INTERVAL) };
    }

    /// Raises an error with the position of the caller, whose text may be of any length.
    pub(crate) fn raise_bytes(self, text: &[u8]) -> ! {
        self.raise_text(&ErrorText::new(format_args!("")).append(text))
    }

    /// Pushes the metatable of the value at `index`; false and nothing pushed if it has none.
    pub(crate) fn push_metatable(self, index: c_int) -> bool {
        // SAFETY: invariants 1 to 3.
        unsafe { ffi::lua_getmetatable(self.state, index) != 0 }
    }

    /// Lua's own function at `upvalue`, called in place of the running one, with its arguments.
    pub(crate) fn continue_with(self, upvalue: c_int) -> c_int {
        // SAFETY: invariants 1 and 3.
        let function = unsafe { ffi::lua_tocfunction(self.state, ffi::lua_upvalueindex(upvalue)) };
        match function {
            // SAFETY: a C function on the stack of a call with its arguments.
            Some(function) => unsafe { function(self.state) },
            None => self.raise(format_args!("no such function")),
        }
    }

    /// Whether the value at `index` is a function in C.
    pub(crate) fn is_c_function(self, index: c_int) -> bool {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_iscfunction(self.state, index) != 0 }
    }

    /// Whether the value at `index` is a function.
    pub(crate) fn is_function(self, index: c_int) -> bool {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_type(self.state, index) == ffi::LUA_TFUNCTION }
    }

    /// Raises an error unless the argument is a function.
    pub(crate) fn check_function(self, argument: c_int) {
        // SAFETY: invariants 1 and 4.
        unsafe { ffi::luaL_checktype(self.state, argument, ffi::LUA_TFUNCTION) };
    }

    /// Raises an error unless there is an argument.
    pub(crate) fn check_any(self, argument: c_int) {
        // SAFETY: invariants 1 and 4.
        unsafe { ffi::luaL_checkany(self.state, argument) };
    }

    /// Replaces the key at the top by its value in the value below, which is popped too.
    pub(crate) fn get_field_of_top(self) {
        // SAFETY: invariants 1 to 4.
        unsafe { ffi::lua_gettable_(self.state, -2) };
        self.replace(-2);
    }

    /// Pops a value and stores it as field `name` of the table two below.
    pub(crate) fn set_field_below(self, name: &CStr) {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_setfield(self.state, -3, name.as_ptr()) };
    }

    /// Pops the name of a chunk and pushes the compiled code, or the error; see [`Self::load`].
    pub(crate) fn load_named(self, source: &[u8]) -> bool {
        // SAFETY: invariant 1; strings of Lua end with a null byte, and this one stays on the
        // stack.
        let name = unsafe { ffi::lua_tolstring(self.state, -1, ptr::null_mut()) };
        // SAFETY: as above.
        let has_loaded = self.load(source, unsafe { CStr::from_ptr(name) });
        self.replace(-2);
        has_loaded
    }

    /// Pops a table and makes it the globals of the function at `index`.
    pub(crate) fn set_environment(self, index: c_int) {
        // SAFETY: invariants 1 and 3.
        unsafe { ffi::lua_setfenv(self.state, index) };
    }
}
