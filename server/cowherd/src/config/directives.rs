//! The table of directives: the single source of fields, defaults, parsing, CONFIG GET and SET,
//! the help text and the documentation tests.
//!
//! A row reads: name, aliases, field: type = default, kind of value, `live` (CONFIG SET may change
//! it), `start` (read at start only) or `protected` (names files), then `adds_up` and `hidden` if
//! they apply, and the summary.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::choices::{
    ArenaPages, CheckpointIsolation, DebugCommand, LogFormat, LogLevel, MaxmemoryPolicy, OneOf,
    OomScoreAdj, Supervised, UndoBlock,
};
use super::list_values::{
    BindAddress, BindAddresses, ClientLimits, CommandRename, OomScoreValues, OomScores,
    OutputLimits, Percentiles, Renames, SaveRule, SaveRules, ShutdownSignal, ShutdownWords,
};
use super::quoting;
use super::values::{
    ByteSize, ClampedInteger, DirectoryPath, FileName, IntegerRange, KeyspaceEvents, ListenAddress,
    OptionalPath, Permissions, Reason, TextValue, ValueKind, YesNo,
};

/// One directive: its names, and how its field of [`Config`] is read and written.
pub(crate) struct Directive {
    /// The name in files, on the command line and in CONFIG GET; lower case.
    pub(crate) name: &'static str,
    /// Other names.
    pub(crate) aliases: &'static [&'static str],
    /// Whether CONFIG SET may change the value; other directives are read at start only.
    pub(crate) changeable: bool,
    /// Whether the value names files, which a client must not choose. Not changeable either.
    pub(crate) protected: bool,
    /// Whether several lines add up; of other directives the last line counts.
    pub(crate) adds_up: bool,
    /// Whether CONFIG GET leaves the directive out.
    pub(crate) hidden: bool,
    /// The effect, in one line.
    pub(crate) summary: &'static str,
    list: bool,
    read: fn(&mut Config, &[String], bool) -> Result<(), Reason>,
    show: fn(&Config) -> String,
    lines: fn(&Config) -> Vec<String>,
    shape: fn() -> String,
}

impl Directive {
    /// The value in the textual form of CONFIG GET.
    pub(crate) fn show(&self, config: &Config) -> String {
        (self.show)(config)
    }

    /// The syntax of a value, such as `yes|no`.
    pub(crate) fn shape(&self) -> String {
        (self.shape)()
    }

    /// Whether `name` is the name or an alias, in any case.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.names().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// The name and the aliases.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// The values to write after the name in a file, one per line; may be empty.
    pub(super) fn lines(&self, config: &Config) -> Vec<String> {
        (self.lines)(config)
    }

    /// Sets the value, regardless of the rules of CONFIG SET. A list given as one word is split, so
    /// that `"900 1"` and `900 1` mean the same. With `fresh` the value replaces the old one even
    /// if lines add up.
    pub(super) fn apply(
        &self,
        config: &mut Config,
        words: &[String],
        fresh: bool,
    ) -> Result<(), Reason> {
        match words {
            [] => Err("wrong number of arguments".into()),
            [word] if self.list => {
                let words = quoting::split(word.as_bytes()).map_err(|error| error.to_string())?;
                (self.read)(config, &words, fresh)
            }
            words => (self.read)(config, words, fresh),
        }
    }
}

impl std::fmt::Debug for Directive {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Directive").field(&self.name).finish()
    }
}

/// Every directive, in the order of the help text.
pub(crate) fn directives() -> &'static [Directive] {
    TABLE
}

macro_rules! table {
    (@changeable live) => { true };
    (@changeable start) => { false };
    (@changeable protected) => { false };
    (@protected protected) => { true };
    (@protected $other:ident) => { false };
    (@has $mark:ident) => { false };
    (@has adds_up adds_up) => { true };
    (@has hidden hidden) => { true };
    (@has $mark:ident $first:ident $($rest:ident)*) => { table!(@has $mark $($rest)*) };
    ($(
        $name:literal $(or $alias:literal)?, $field:ident: $type:ty = $default:expr,
        $kind:expr, $change:ident $($mark:ident)*, $summary:literal;
    )*) => {
        /// The configuration: one typed field per directive.
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct Config { $( #[doc = $summary] pub $field: $type, )* }

        impl Default for Config {
            fn default() -> Self {
                Self { $( $field: $default, )* }
            }
        }

        static TABLE: &[Directive] = &[ $( Directive {
            name: $name,
            aliases: &[$($alias)?],
            changeable: table!(@changeable $change),
            protected: table!(@protected $change),
            adds_up: table!(@has adds_up $($mark)*),
            hidden: table!(@has hidden $($mark)*),
            summary: $summary,
            list: is_list(&$kind),
            read: |config, words, fresh| {
                config.$field = $kind.read(&config.$field, words, fresh)?;
                Ok(())
            },
            show: |config| $kind.show(&config.$field),
            lines: |config| $kind.lines(&config.$field),
            shape: || $kind.shape(),
        }, )* ];
    };
}

const fn is_list<K: ValueKind>(_kind: &K) -> bool {
    K::LIST
}

const fn up_to<T>(low: T, high: T) -> IntegerRange<T>
where
    T: Copy,
{
    IntegerRange { low, high }
}

/// The bound of directives that Redis keeps in a C `int`.
const INT_MAX: u32 = i32::MAX.unsigned_abs();
/// The bound of directives that Redis keeps in a C `long long`.
const LONG_MAX: u64 = i64::MAX.unsigned_abs();
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

table! {
    "port", port: u16 = 6379, up_to(0u16, 65535), start,
        "TCP port for clients; 0 listens on none";
    "bind", bind: Vec<BindAddress> = default_bind(), BindAddresses, start,
        "Addresses to listen on; \"-\" before one that may be missing, * for all of IPv4";
    "unixsocket", unixsocket: Option<PathBuf> = None, OptionalPath, start,
        "Path of a Unix socket to listen on; empty for none";
    "unixsocketperm", unixsocketperm: u32 = 0, Permissions, start,
        "Permissions of the Unix socket, in octal; 0 leaves those of the umask";
    "protected-mode", protected_mode: bool = true, YesNo, live,
        "Serve only this machine while bound to every address without a password";
    "tcp-backlog", tcp_backlog: u32 = 511, up_to(0u32, INT_MAX), start,
        "Connections that may wait to be accepted";
    "tcp-keepalive", tcp_keepalive: u32 = 300, up_to(0u32, INT_MAX), live,
        "Seconds between probes of silent connections; 0 sends none";
    "timeout", timeout: u32 = 0, up_to(0u32, INT_MAX), live,
        "Close a connection idle for so many seconds; 0 never does";
    "maxclients", maxclients: u32 = 10_000, up_to(1u32, u32::MAX), live,
        "The most connections at a time";
    "requirepass", requirepass: Option<String> = None, TextValue, live,
        "Password that AUTH asks for; empty for none";
    "threads" or "io-threads", threads: usize = default_threads(), up_to(1usize, 64), start,
        "Worker threads; by default one per core, 8 at most";
    "hz", hz: u32 = 10, ClampedInteger { low: 1, high: 500 }, live,
        "Rounds of background work in a second";

    "databases", databases: usize = 16, up_to(1usize, 16), start,
        "Number of databases that SELECT reaches; the image has room for 16";
    "maxmemory", maxmemory: u64 = 0,
        ByteSize { low: 0, high: LONG_MAX, percent: true }, live,
        "Most bytes of data; 0 takes 60 % of the memory of the machine or its cgroup";
    "maxmemory-policy", maxmemory_policy: MaxmemoryPolicy = MaxmemoryPolicy::Noeviction,
        OneOf::<MaxmemoryPolicy>::new(), live,
        "Keys to evict when maxmemory is reached";
    "maxmemory-samples", maxmemory_samples: u32 = 5, up_to(1u32, 64), live,
        "Keys sampled for each eviction";
    "lfu-log-factor", lfu_log_factor: u32 = 10, up_to(0u32, INT_MAX), live,
        "How much rarer each increment of the counter of uses gets (lfu policies)";
    "lfu-decay-time", lfu_decay_time: u32 = 1, up_to(0u32, INT_MAX), live,
        "Minutes without a use that decrement the counter of uses; 0: never (lfu policies)";
    "arena-pages", arena_pages: ArenaPages = ArenaPages::Auto,
        OneOf::<ArenaPages>::new(), start,
        "Kind of memory pages that hold the data; auto takes the best there is";
    "arena-thp-collapse", arena_thp_collapse: bool = true, YesNo, live,
        "Collapse chunks in use that lie on small pages into transparent huge pages";
    "activedefrag", activedefrag: bool = true, YesNo, live,
        "Move objects together, so that free memory is in one piece and returns to the system";
    "active-defrag-ignore-bytes", active_defrag_ignore_bytes: u64 = 100 * MIB,
        ByteSize { low: 1, high: LONG_MAX, percent: false }, live,
        "Wasted bytes up to which the background does not compact; never more than maxmemory / 32";
    "active-defrag-threshold-lower", active_defrag_threshold_lower: u32 = 10,
        up_to(0u32, 1000), live,
        "Wasted bytes, in percent of the bytes in use, from which the background compacts";
    "active-defrag-threshold-upper", active_defrag_threshold_upper: u32 = 100,
        up_to(0u32, 1000), live,
        "Wasted bytes, in percent, from which it does so at full effort";
    "active-defrag-cycle-min", active_defrag_cycle_min: u32 = 1, up_to(1u32, 99), live,
        "Least effort of compaction in the background, in percent of a core";
    "active-defrag-cycle-max", active_defrag_cycle_max: u32 = 25, up_to(1u32, 99), live,
        "Full effort of compaction in the background, in percent of a core";
    "proto-max-bulk-len", proto_max_bulk_len: u64 = 512 * MIB,
        ByteSize { low: MIB, high: LONG_MAX, percent: false }, live,
        "The longest single argument of a command, and string; never more than 1 GiB";
    "list-max-listpack-size" or "list-max-ziplist-size", list_max_listpack_size: i32 = -2,
        up_to(i32::MIN, i32::MAX), live,
        "Elements, or -1 to -5 for 4 to 64 KiB, of a list in one run, and of the nodes of others";
    "list-compress-depth", list_compress_depth: u32 = 0, up_to(0u32, INT_MAX), live,
        "Accepted for compatibility: nodes of lists are never compressed";
    "hll-sparse-max-bytes", hll_sparse_max_bytes: u64 = 3000,
        ByteSize { low: 0, high: LONG_MAX, percent: false }, live,
        "The most bytes of a sparse HyperLogLog; beyond it becomes dense";
    "hash-max-listpack-entries" or "hash-max-ziplist-entries",
        hash_max_listpack_entries: u64 = 512, up_to(0u64, LONG_MAX), live,
        "A hash of more fields is kept in a table, no longer in one packed run";
    "hash-max-listpack-value" or "hash-max-ziplist-value",
        hash_max_listpack_value: u64 = 64, up_to(0u64, LONG_MAX), live,
        "As is one with a field or value of more bytes";
    "set-max-intset-entries", set_max_intset_entries: u64 = 512, up_to(0u64, LONG_MAX), live,
        "A set of more integers is not kept as sorted numbers";
    "set-max-listpack-entries", set_max_listpack_entries: u64 = 128, up_to(0u64, LONG_MAX), live,
        "A set of more members is kept in a table, no longer in one packed run";
    "set-max-listpack-value", set_max_listpack_value: u64 = 64, up_to(0u64, LONG_MAX), live,
        "As is one with a member of more bytes";
    "stream-node-max-bytes", stream_node_max_bytes: u64 = 4096,
        ByteSize { low: 0, high: LONG_MAX, percent: false }, live,
        "The most bytes of a stream's node, in which some entries stand together; 0 is no limit";
    "stream-node-max-entries", stream_node_max_entries: u64 = 100, up_to(0u64, LONG_MAX), live,
        "The most entries of such a node; 0 is no limit";
    "client-output-buffer-limit", client_output_buffer_limit: OutputLimits
            = OutputLimits::default(), ClientLimits, live,
        "Replies a client may leave unread before it is cut off, by class";
    "notify-keyspace-events", notify_keyspace_events: String = String::new(),
        KeyspaceEvents, live,
        "Classes of keyspace events to publish; empty for none";
    "zset-max-listpack-entries" or "zset-max-ziplist-entries", zset_max_listpack_entries: u64 = 128,
        up_to(0u64, LONG_MAX), live,
        "The most members of a sorted set that is kept as one run of bytes";
    "zset-max-listpack-value" or "zset-max-ziplist-value", zset_max_listpack_value: u64 = 64,
        ByteSize { low: 0, high: LONG_MAX, percent: false }, live,
        "The longest member, in bytes, of such a sorted set";

    "dir", dir: PathBuf = PathBuf::from("./"), DirectoryPath, protected,
        "Directory of the image";
    "dbfilename", dbfilename: String = "dump.cow".to_owned(), FileName, protected,
        "Name of the image in dir";
    "save", save: Vec<SaveRule> = default_save(), SaveRules, live adds_up,
        "Checkpoint after so many seconds if so many keys changed; \"\": only on demand";
    "stop-writes-on-bgsave-error", stop_writes_on_bgsave_error: bool = true, YesNo, live,
        "Refuse writes after a failed background checkpoint";
    "rdbcompression", rdbcompression: bool = false, YesNo, live,
        "Compress the image";
    "rdbchecksum", rdbchecksum: bool = true, YesNo, start,
        "Accepted for compatibility: the image always carries checksums";
    "checkpoint-isolation", checkpoint_isolation: CheckpointIsolation
            = CheckpointIsolation::UndoLog, OneOf::<CheckpointIsolation>::new(), start,
        "How a background checkpoint sees the data of one instant";
    "checkpoint-undo-limit", checkpoint_undo_limit: u64 = 0,
        ByteSize { low: 0, high: 64 * GIB, percent: false }, start,
        "Most memory of the undo log; a checkpoint that needs more fails. 0: 25 % of maxmemory";
    "checkpoint-undo-block", checkpoint_undo_block: UndoBlock = UndoBlock::B512,
        OneOf::<UndoBlock>::new(), start,
        "Bytes that the undo log captures at once";

    "loglevel", loglevel: LogLevel = LogLevel::Notice, OneOf::<LogLevel>::new(), live,
        "How much is logged";
    "log-format", log_format: LogFormat = LogFormat::Text, OneOf::<LogFormat>::new(), start,
        "Format of log lines: text, or one JSON object a line";
    "logfile", logfile: Option<PathBuf> = None, OptionalPath, start,
        "File to log to; empty for standard output";
    "slowlog-log-slower-than", slowlog_log_slower_than: i64 = 10_000,
        up_to(-1i64, i64::MAX), live,
        "Put commands of so many microseconds into SLOWLOG; 0 puts all, -1 none";
    "slowlog-max-len", slowlog_max_len: u64 = 128, up_to(0u64, LONG_MAX), live,
        "Entries that SLOWLOG keeps";
    "busy-reply-threshold" or "lua-time-limit", busy_reply_threshold: u64 = 5000,
        up_to(0u64, LONG_MAX), live,
        "Milliseconds after which a script lets other clients get BUSY";
    "lua-memory-limit", lua_memory_limit: u64 = 512 << 20,
        ByteSize { low: 0, high: 64 * GIB, percent: false }, live,
        "Memory that the scripts of one thread take at most; 0: no limit";
    "tracking-table-max-keys", tracking_table_max_keys: u64 = 1_000_000,
        up_to(0u64, LONG_MAX), live,
        "Keys that CLIENT TRACKING remembers at most; 0: no limit";
    "latency-monitor-threshold", latency_monitor_threshold: u64 = 0,
        up_to(0u64, LONG_MAX), live,
        "Record events of so many milliseconds for LATENCY; 0 records none";
    "latency-tracking", latency_tracking: bool = true, YesNo, live,
        "Keep latency histograms of each command";
    "latency-tracking-info-percentiles", latency_tracking_info_percentiles: Vec<f64>
            = vec![50.0, 99.0, 99.9], Percentiles, live,
        "The percentiles of these histograms that INFO latencystats shows";
    "metrics-port", metrics_port: u16 = 9121, up_to(0u16, 65535), start,
        "TCP port of the Prometheus metrics; 0 turns them off";
    "metrics-bind", metrics_bind: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST), ListenAddress, start,
        "Address that serves the metrics";

    "shutdown-on-sigterm", shutdown_on_sigterm: ShutdownSignal = ShutdownSignal::default(),
        ShutdownWords, live,
        "How SIGTERM shuts the server down: words of SHUTDOWN, default for none";
    "shutdown-on-sigint", shutdown_on_sigint: ShutdownSignal = ShutdownSignal::default(),
        ShutdownWords, live,
        "How SIGINT shuts the server down";
    "shutdown-timeout", shutdown_timeout: u32 = 10, up_to(0u32, INT_MAX), live,
        "Accepted for compatibility: there are no replicas for which a shutdown waits";
    "supervised", supervised: Supervised = Supervised::No, OneOf::<Supervised>::new(), start,
        "Supervisor to notify when the server is ready";
    "pidfile", pidfile: Option<PathBuf> = None, OptionalPath, start,
        "File to write the process id to; empty for none";
    "oom-score-adj", oom_score_adj: OomScoreAdj = OomScoreAdj::No,
        OneOf::<OomScoreAdj>::new(), live,
        "Whether to set the score of the kernel's out-of-memory killer";
    "oom-score-adj-values", oom_score_adj_values: OomScoreValues
            = OomScoreValues { server: 0, replica: 200, child: 800 }, OomScores, live,
        "The scores of server, replica and checkpoint child; the highest is killed first";
    "enable-debug-command", enable_debug_command: DebugCommand = DebugCommand::No,
        OneOf::<DebugCommand>::new(), start,
        "Clients that may use DEBUG";
    "rename-command", rename_command: Vec<CommandRename> = Vec::new(),
        Renames, start adds_up hidden,
        "Give a command another name, or an empty one to disable it";
}

/// Loopback only; the machine may lack IPv6.
fn default_bind() -> Vec<BindAddress> {
    vec![
        BindAddress { address: IpAddr::V4(Ipv4Addr::LOCALHOST), optional: false },
        BindAddress { address: IpAddr::V6(Ipv6Addr::LOCALHOST), optional: true },
    ]
}

fn default_save() -> Vec<SaveRule> {
    [(3600, 1), (300, 100), (60, 10_000)]
        .map(|(seconds, changes)| SaveRule { seconds, changes })
        .to_vec()
}

fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8))
}
