//! Linearizability of one group of keys: just-in-time linearization with memoization, after Wing
//! and Gong ("Testing and verifying concurrent objects", 1993) and Lowe ("Testing for
//! linearizability", 2017).
//!
//! The events of a history are processed in order. A *configuration* is one explanation of the
//! events so far: a state of the model, and the set of pending operations that have taken effect
//! in it.
//!
//! ```text
//!   client 1   |----- SET k 1 -----|
//!   client 2        |-- GET k --> nil --|
//!                                  ^    ^
//!   at each reply: from each configuration, pending operations take effect, in every order,
//!   until the answered one has; the model must give the recorded replies.
//!   No configuration is left: the events up to here have no explanation.
//! ```
//!
//! An operation takes effect as late as possible. That loses no explanation: an operation that
//! takes effect between two replies can do so just before the second. Orders that lead to the same
//! configuration are followed once. No request names keys of two groups, so each group is checked
//! alone (linearizability is local: Herlihy and Wing, 1990).
//!
//! A *cut* is the content of all keys of the group at one unknown instant of an interval, as an
//! image holds it. A cut takes effect as early as possible, and the checker notes the gaps between
//! two events in which it can: an image is one cut of all groups only if they have a gap in common
//! (see `cuts`).
//!
//! With eviction, a key may vanish at any time. It is enough to let keys vanish just before a
//! command that names them.

use crate::history::{Cut, Event, History, Operation, Request, Tick};
use crate::model::{Keys, State, WatchState};
use crate::reply::{Reply, Word, Words};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The checker gives up beyond this number.
const MOST_CONFIGURATIONS: usize = 200_000;

/// Deviations from the model that a correct server may show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Keys may be evicted, and commands refused for want of memory.
    pub may_evict: bool,
}

/// Numbers of gaps in which the open cut can lie.
type Gaps = BTreeSet<usize>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Configuration {
    state: State,
    /// A bit for each slot: its pending operation has taken effect.
    done: u64,
    /// The cut that is open has taken effect.
    is_cut: bool,
}

/// Configurations, each with the gaps in which the last cut can lie.
type Configurations = HashMap<Configuration, Gaps>;

/// The stretches of time in which a cut can lie.
#[derive(Clone, Debug)]
pub struct CutPlacement {
    /// Position in the history.
    pub cut: usize,
    pub stretches: Vec<(Tick, Tick)>,
}

/// The end of the shortest prefix of a history that has no explanation.
#[derive(Debug)]
pub struct Violation {
    /// The last event of the prefix.
    pub event: Event,
    /// The states that are possible just before the event.
    pub states: Vec<State>,
    /// The first event after the last moment without a pending operation.
    pub since: usize,
    /// The states that are possible at that moment.
    pub start: Vec<State>,
    /// The number of configurations exceeded the limit.
    pub gave_up: bool,
}

/// Checks the histories of one group, each of which begins where the one before ends.
#[derive(Clone, Debug)]
pub struct Checker {
    rules: Rules,
    configurations: Configurations,
    /// Replies that came while another operation was pending.
    pub overlaps: usize,
    /// The most configurations at once.
    pub most: usize,
}

impl Checker {
    pub fn new(rules: Rules) -> Self {
        Self::starting_with(rules, [State::default()])
    }

    pub fn starting_with(rules: Rules, states: impl IntoIterator<Item = State>) -> Self {
        let fresh = |state| (Configuration { state, done: 0, is_cut: false }, Gaps::new());
        let configurations = states.into_iter().map(fresh).collect();
        Self { rules, configurations, overlaps: 0, most: 0 }
    }

    /// The same states under other rules.
    pub fn with_rules(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// The states that are possible at the end of the last history.
    pub fn states(&self) -> Vec<State> {
        self.configurations.keys().map(|one| one.state.clone()).collect()
    }

    /// Checks a history; returns where its cuts can lie.
    pub fn check(&mut self, history: &History) -> Result<Vec<CutPlacement>, Box<Violation>> {
        let configurations = std::mem::take(&mut self.configurations);
        let mut run = Run {
            rules: self.rules,
            history,
            configurations,
            pending: vec![None; u64::BITS as usize],
            slots: HashMap::new(),
            cut: None,
            placed: Vec::new(),
            since: 0,
            start: Vec::new(),
        };
        let events = history.events();
        run.mark_start(0);
        for (number, (tick, event)) in events.iter().enumerate() {
            let explained = run.take(*tick, *event);
            if !explained || run.configurations.len() > MOST_CONFIGURATIONS {
                return Err(Box::new(Violation {
                    event: *event,
                    states: run.states(),
                    since: run.since,
                    start: run.start,
                    gave_up: explained,
                }));
            }
            self.most = self.most.max(run.configurations.len());
            if run.is_quiescent() {
                run.mark_start(number + 1);
            } else if matches!(event, Event::Answered(_)) {
                self.overlaps += 1;
            }
        }
        run.resolve_cut();
        run.forget_pending();
        self.configurations = run.configurations;
        Ok(run.placed)
    }
}

/// One pass over a history.
struct Run<'h> {
    rules: Rules,
    history: &'h History,
    configurations: Configurations,
    /// The pending operation of each slot.
    pending: Vec<Option<usize>>,
    /// Slots of pending operations by their invocation.
    slots: HashMap<Tick, usize>,
    cut: Option<OpenCut<'h>>,
    placed: Vec<CutPlacement>,
    since: usize,
    start: Vec<State>,
}

struct OpenCut<'h> {
    number: usize,
    cut: &'h Cut,
    /// The start of each gap, which is the end of the one before.
    gaps: Vec<Tick>,
    is_closed: bool,
}

impl<'h> Run<'h> {
    fn states(&self) -> Vec<State> {
        const ENOUGH_FOR_A_REPORT: usize = 3;
        let states = self.configurations.keys().map(|one| &one.state);
        states.take(ENOUGH_FOR_A_REPORT).cloned().collect()
    }

    fn is_quiescent(&self) -> bool {
        self.slots.is_empty() && self.cut.as_ref().is_none_or(|cut| cut.is_closed)
    }

    fn mark_start(&mut self, next: usize) {
        (self.since, self.start) = (next, self.states());
    }

    /// Processes one event. False if it has no explanation; the configurations are then unchanged.
    fn take(&mut self, tick: Tick, event: Event) -> bool {
        let explained = match event {
            Event::Invoked(number) => {
                let free = self.pending.iter().position(Option::is_none);
                let slot = free.expect("there are fewer clients than slots");
                self.pending[slot] = Some(number);
                self.slots.insert(self.history.operations[number].invoked, slot);
                true
            }
            Event::Answered(number) => self.finish(number),
            Event::CutOpened(number) => {
                self.resolve_cut();
                let cut = &self.history.cuts[number];
                self.cut = Some(OpenCut { number, cut, gaps: Vec::new(), is_closed: false });
                true
            }
            Event::CutClosed(_) => self.close_cut(tick),
        };
        if self.cut.as_ref().is_some_and(|cut| !cut.is_closed) {
            self.place_cut(tick);
        }
        explained
    }

    /// Lets an answered operation, and others before it, take effect.
    fn finish(&mut self, number: usize) -> bool {
        let operation = &self.history.operations[number];
        let slot = self.slots[&operation.invoked];
        let bit = 1 << slot;
        let (finished, _) = self.explore(|one| one.done & bit != 0);
        if finished.is_empty() {
            return false;
        }
        self.configurations.clear();
        for (mut one, gaps) in finished {
            one.done &= !bit;
            self.configurations.entry(one).or_default().extend(gaps);
        }
        self.pending[slot] = None;
        self.slots.remove(&operation.invoked);
        true
    }

    /// Lets pending operations take effect in every order. Returns the configurations that are
    /// `is_enough`, from which it goes no further, and all others.
    fn explore(
        &self,
        is_enough: impl Fn(&Configuration) -> bool,
    ) -> (Configurations, Configurations) {
        let (mut ends, mut met) = (Configurations::new(), Configurations::new());
        let mut open: Vec<(Configuration, Gaps)> =
            self.configurations.iter().map(|(one, gaps)| (one.clone(), gaps.clone())).collect();
        while let Some((one, gaps)) = open.pop() {
            if is_enough(&one) {
                ends.entry(one).or_default().extend(gaps);
                continue;
            }
            if let Some(known) = met.get_mut(&one) {
                if gaps.is_subset(known) {
                    continue;
                }
                known.extend(gaps.iter().copied());
            } else {
                met.insert(one.clone(), gaps.clone());
            }
            if met.len() > MOST_CONFIGURATIONS {
                break;
            }
            for (slot, state) in self.next_steps(&one) {
                let next = Configuration { state, done: one.done | 1 << slot, ..one };
                open.push((next, gaps.clone()));
            }
        }
        (ends, met)
    }

    /// Each pending operation that can take effect next, and the states to which it leads.
    fn next_steps(&self, one: &Configuration) -> Vec<(usize, State)> {
        let mut steps = Vec::new();
        for (slot, number) in self.pending.iter().enumerate() {
            let Some(number) = number else { continue };
            let operation = &self.history.operations[*number];
            let waits = operation.after.and_then(|before| self.slots.get(&before));
            if one.done & 1 << slot != 0 || waits.is_some_and(|before| one.done & 1 << before == 0)
            {
                continue;
            }
            let states = outcomes(self.rules, &one.state, operation);
            steps.extend(states.into_iter().map(|state| (slot, state)));
        }
        steps
    }

    /// Lets the open cut take effect in the gap that begins at `tick`, where its content is that of
    /// a state.
    fn place_cut(&mut self, tick: Tick) {
        let Some(open) = &mut self.cut else { return };
        let gap = open.gaps.len();
        open.gaps.push(tick);
        let content = &open.cut.keys;
        let (_, mut met) = self.explore(|one| one.is_cut);
        met.retain(|one, _| !one.is_cut);
        for (one, _) in met {
            if let Some(state) = self.agrees(&one.state, content) {
                let cut = Configuration { state, is_cut: true, ..one };
                self.configurations.entry(cut).or_default().insert(gap);
            }
        }
    }

    /// The state in which exactly the keys of a cut are left, if `state` leads to it.
    fn agrees(&self, state: &State, content: &Keys) -> Option<State> {
        if state.keys() == content {
            return Some(state.clone());
        }
        let cut = self.rules.may_evict.then(|| state.with_keys(content.clone()));
        cut.filter(|cut| leads_to(state, cut))
    }

    /// Drops the configurations in which the cut has not taken effect.
    fn close_cut(&mut self, tick: Tick) -> bool {
        let Some(open) = &mut self.cut else { return false };
        open.gaps.push(tick);
        open.is_closed = true;
        if !self.configurations.keys().any(|one| one.is_cut) {
            return false;
        }
        let all = std::mem::take(&mut self.configurations);
        for (one, gaps) in all.into_iter().filter(|(one, _)| one.is_cut) {
            let one = Configuration { is_cut: false, ..one };
            self.configurations.entry(one).or_default().extend(gaps);
        }
        true
    }

    /// Records the gaps of the last cut that the events since have left.
    fn resolve_cut(&mut self) {
        let Some(open) = self.cut.take() else { return };
        let possible: Gaps = self.configurations.values().flatten().copied().collect();
        let stretch = |gap: &usize| (open.gaps[*gap], open.gaps[gap + 1]);
        let stretches = possible.iter().map(stretch).collect();
        self.placed.push(CutPlacement { cut: open.number, stretches });
        self.configurations.values_mut().for_each(Gaps::clear);
    }

    /// Drops operations without a reply: the next history begins after a restart.
    fn forget_pending(&mut self) {
        let all = std::mem::take(&mut self.configurations);
        let quiet = |(one, gaps)| (Configuration { done: 0, is_cut: false, ..one }, gaps);
        self.configurations = all.into_iter().map(quiet).collect();
    }
}

/// The states to which an operation can lead; none, if its reply is impossible.
fn outcomes(rules: Rules, state: &State, operation: &Operation) -> Vec<State> {
    let reply = operation.answer.as_ref().map(|(_, reply)| reply);
    match &operation.request {
        Request::Command(words) => one_step(rules, state, operation.client, words, reply),
        Request::Transaction(commands) => {
            transaction(rules, state, operation.client, commands, reply)
        }
        Request::Script(script) => match reply {
            None => steps(rules, state.clone(), operation.client, &script.commands, None),
            Some(Reply::Array(replies)) if replies.len() == script.commands.len() => {
                steps(rules, state.clone(), operation.client, &script.commands, Some(replies))
            }
            Some(_) => Vec::new(),
        },
    }
}

fn transaction(
    rules: Rules,
    state: &State,
    client: usize,
    commands: &[Words],
    reply: Option<&Reply>,
) -> Vec<State> {
    let mut state = state.clone();
    let watch = state.end_watch(client);
    let replies = match reply {
        None if watch == Some(WatchState::Dirty) => return vec![state],
        // An aborted transaction is one that has not taken effect.
        None => None,
        Some(Reply::Nil) => {
            let may_refuse = |watch| watch != WatchState::Clean || rules.may_evict;
            return if watch.is_some_and(may_refuse) { vec![state] } else { Vec::new() };
        }
        Some(Reply::Error(text)) => {
            let is_refused = rules.may_evict && text.starts_with(b"EXECABORT ");
            return if is_refused { vec![state] } else { Vec::new() };
        }
        Some(Reply::Array(replies)) if replies.len() == commands.len() => Some(replies),
        Some(_) => return Vec::new(),
    };
    if watch == Some(WatchState::Dirty) {
        return Vec::new();
    }
    steps(rules, state, client, commands, replies.map(Vec::as_slice))
}

/// The states to which commands lead that run one after the other.
fn steps(
    rules: Rules,
    state: State,
    client: usize,
    commands: &[Words],
    replies: Option<&[Reply]>,
) -> Vec<State> {
    let mut states = HashSet::from([state]);
    for (number, words) in commands.iter().enumerate() {
        let reply = replies.map(|replies| &replies[number]);
        let next = |state: &State| one_step(rules, state, client, words, reply);
        states = states.iter().flat_map(next).collect();
    }
    states.into_iter().collect()
}

/// The states to which one command can lead.
fn one_step(
    rules: Rules,
    state: &State,
    client: usize,
    words: &[Word],
    reply: Option<&Reply>,
) -> Vec<State> {
    let run = |mut state: State| {
        let expected = state.run(client, words, reply);
        reply.is_none_or(|reply| *reply == expected).then_some(state)
    };
    if !rules.may_evict {
        return run(state.clone()).into_iter().collect();
    }
    let is_refused = reply.is_some_and(Reply::is_out_of_memory);
    let named = state.named_by(words);
    let mut states: Vec<State> = Vec::new();
    // A set of evicted keys comes after its subsets.
    for evicted in 0..1_u32 << named.len() {
        let mut state = state.clone();
        for (_, key) in named.iter().enumerate().filter(|(i, _)| evicted & 1 << i != 0) {
            state.evict(key);
        }
        let next = if is_refused { Some(state) } else { run(state) };
        states.extend(next.filter(|next| !states.iter().any(|other| leads_to(other, next))));
    }
    states
}

/// Whether eviction alone leads from one state to another. The other is then redundant: eviction
/// can wait until the next command that names the key.
fn leads_to(one: &State, other: &State) -> bool {
    let remains = |(key, entry): (&Word, _)| one.keys().get(key) == Some(entry);
    other.keys().iter().all(remains) && one.with_keys(other.keys().clone()) == *other
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
