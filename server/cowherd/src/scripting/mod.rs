//! Scripts and functions: what is known of them, apart from the keyspace and from the interpreters.
//!
//! ```text
//! commands::scripting --> ScriptCache (bodies by SHA-1)      one for the server
//!                    \--> FunctionRegistry (libraries)       one for the server
//! engine::script ------> ScriptRuntime (compiled code)       one for each worker
//!                   \--> RunningScripts (busy ones, kills)    one for the server
//! ```
//!
//! | file | content |
//! |---|---|
//! | `cache` | the scripts that EVALSHA finds |
//! | `shebang` | the first line of a script or library |
//! | `functions` | libraries and their functions |
//! | `interpreter_memory` | what the interpreters of all workers take |
//! | `payload` | what FUNCTION DUMP returns and FUNCTION RESTORE takes |
//! | `runtime` | a worker's interpreter and what it has compiled |
//! | `running` | the scripts that run, for BUSY and KILL |

mod cache;
mod functions;
mod interpreter_memory;
mod payload;
mod running;
mod runtime;
mod shebang;

pub use cache::{ScriptCache, Sha};
pub use functions::{FunctionRegistry, Library, log as write_script_log};
pub use interpreter_memory::InterpreterMemory;
pub use payload::{RestorePolicy, dump_libraries, load_payload};
pub use running::{KillError, RunningScript, RunningScripts};
pub use runtime::{Runnable, ScriptRuntime};

/// The state of scripts that all connections share.
#[derive(Debug, Default)]
pub struct Scripting {
    /// The scripts that EVALSHA finds.
    pub cache: ScriptCache,
    /// The libraries of functions.
    pub functions: FunctionRegistry,
    /// What the interpreters take.
    pub interpreters: InterpreterMemory,
    /// The scripts that run.
    pub running: RunningScripts,
}
