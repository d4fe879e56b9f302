//! Pairs queries with answers.
//!
//! - A transaction belongs to the vantage (interface and direction) where its query was seen first. Its answer is the
//!   first one seen there, going the other way; so latency is what the client nearest to that place felt.
//! - A query seen again at its vantage is a retry; latency runs from the first one. Seen elsewhere it is a copy of the
//!   same packet further on its way, also with another server address when a Service's DNAT lies between.
//! - A masqueraded copy comes from another client address: leaving by one interface shortly after the like of it (id,
//!   question, and server or client port) was received on another, it is taken for that one. Where a Service's DNAT
//!   changes the server too, the port tells: masquerading keeps it where it is free. A forwarder that keeps the id has
//!   a port of its own, and what it asks is a transaction of its own; so is, for want of anything that tells the two
//!   apart, a query whose server, client and port are all translated (`--random-fully`).
//! - Two servers asked the same at the same vantage are two transactions (musl asks all its servers at once).
//! - Some vantages see queries only, because answers are redirected past them (`bpf_redirect_peer`). Where a vantage
//!   never saw any answer, an answer seen elsewhere counts in its stead.
//! - An answer after the timeout changes nothing any more, and a query after it begins a new transaction.
//!
//! What is decided depends on the records' times alone and not on when they are fed; settled transactions are
//! remembered for as long as the timeout, so that further copies and repeated answers are known for what they are.

use super::message::{Message, Question};
use super::report::{Answered, Begun, Books, Rows, Settled};
use super::{DnsConfig, DnsOutcome, Transport, Vantage};
use crate::snapshot::Hist;
use nettrace_common::wire::Direction;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;

/// Records of different CPUs may arrive out of order by this much; nothing is settled before.
const GRACE_NS: u64 = 1_000_000_000;
/// Entries of the same client port and id. More than a few of them come from a broken or hostile client only.
const MAX_GROUP: usize = 64;
/// How long a packet may take from one interface to the one that it leaves by.
const FORWARD_NS: u64 = 100_000_000;
/// Vantages remembered as seeing answers: more than a node has interfaces.
const MAX_VANTAGES: usize = 4096;

/// A message at a place and time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    /// When, ns.
    pub(super) ts_ns: u64,
    /// Where.
    pub(super) vantage: Vantage,
    /// Sender.
    pub(super) source: SocketAddr,
    /// Receiver.
    pub(super) destination: SocketAddr,
    /// UDP or TCP.
    pub(super) transport: Transport,
}

/// What is the same wherever a transaction's messages are seen, the question apart: an answer may leave that out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct GroupKey {
    client: SocketAddr,
    transport: Transport,
    id: u16,
    /// For loopback clients, which are others in each network namespace.
    netns: u32,
}

/// Key into a queue: a time, ns, and a number that tells entries apart.
type Due = (u64, u64);

#[derive(Clone, Debug)]
struct Entry {
    /// Its place in [`Pairs::waiting`] or, once settled, in [`Pairs::recent`].
    due: Due,
    vantage: Vantage,
    server: SocketAddr,
    question: Question,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Waiting(Waiting),
    Settled,
    /// An answer whose query was not seen.
    Orphan,
    /// A masqueraded copy of the transaction with that key.
    Masqueraded(GroupKey),
}

#[derive(Clone, Debug)]
struct Waiting {
    asked_ns: u64,
    /// When the query was last seen at its vantage, ns.
    sent_ns: u64,
    retries: u32,
    rows: Rows,
    begun: Begun,
    /// The answer as seen at another vantage than its own, since the last retry.
    elsewhere: Option<Answered>,
}

/// What a query is to the transactions already known; numbers are places in their group.
#[derive(Clone, Copy, Debug)]
enum Known {
    New,
    Retry(usize),
    /// The transaction before it ended without an answer at its vantage.
    After(usize),
    /// The same packet at another vantage.
    Copy(usize),
    /// The same packet at another vantage, after the answer or after masquerading.
    Seen,
    /// The packet of the transaction with that key, seen for the first time after masquerading.
    Masqueraded(GroupKey),
}

/// Transactions by their keys, and the books that they are entered in.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    config: DnsConfig,
    groups: HashMap<GroupKey, Vec<Entry>>,
    /// Unanswered transactions by the time of their query.
    waiting: BTreeMap<Due, GroupKey>,
    /// Settled ones and orphans by the time when they are forgotten.
    recent: BTreeMap<Due, GroupKey>,
    /// Vantages whose transactions get answers that go the other way.
    seeing: HashSet<Vantage>,
    /// Unanswered transactions that came in by an interface, so that their masqueraded copies are known. Of those with
    /// the same id and question the last one.
    received: HashMap<(Transport, u16, Question), GroupKey>,
    newest_ns: u64,
    serial: u64,
    unmatched: u64,
    books: Books,
}

impl Sighting {
    fn group(&self, client: SocketAddr, id: u16) -> GroupKey {
        let netns = if client.ip().is_loopback() { self.vantage.netns } else { 0 };
        GroupKey { client, transport: self.transport, id, netns }
    }
}

impl Entry {
    fn waiting(&self) -> Option<&Waiting> {
        if let State::Waiting(w) = &self.state { Some(w) } else { None }
    }

    fn waiting_mut(&mut self) -> Option<&mut Waiting> {
        if let State::Waiting(w) = &mut self.state { Some(w) } else { None }
    }
}

impl Pairs {
    /// None yet.
    pub(super) fn new(config: DnsConfig) -> Self {
        Self {
            config,
            groups: HashMap::new(),
            waiting: BTreeMap::new(),
            recent: BTreeMap::new(),
            seeing: HashSet::new(),
            received: HashMap::new(),
            newest_ns: 0,
            serial: 0,
            unmatched: 0,
            books: Books::new(config),
        }
    }

    /// Takes a query with its first question.
    pub(super) fn query(&mut self, seen: &Sighting, message: &Message, question: &Question) {
        self.expire(seen.ts_ns);
        let key = seen.group(seen.source, message.id);
        match self.recognise(&key, seen, question) {
            Known::New => self.begin(key, seen, message, question),
            Known::After(at) => {
                self.close(&key, at);
                self.begin(key, seen, message, question);
            }
            Known::Retry(at) => {
                if let Some(w) = self.entry_mut(&key, at).and_then(Entry::waiting_mut) {
                    w.retries = w.retries.saturating_add(1);
                    w.sent_ns = seen.ts_ns;
                    w.elsewhere = None;
                    self.books.retry();
                }
            }
            Known::Copy(at) => self.adopt_earlier(&key, at, seen),
            Known::Seen => {}
            Known::Masqueraded(of) => {
                self.remember(key, seen.vantage, seen.destination, question, State::Masqueraded(of));
            }
        }
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, seen: &Sighting, message: &Message) {
        self.expire(seen.ts_ns);
        let key = seen.group(seen.destination, message.id);
        let asked = message.questions.first();
        let group = self.groups.get(&key).map_or(&[][..], Vec::as_slice);
        let matching =
            || group.iter().enumerate().filter(|(_, e)| asked.is_none_or(|question| *question == e.question));
        let waiting = || matching().filter(|(_, e)| e.waiting().is_some());
        let here = || waiting().filter(|(_, e)| e.vantage == seen.vantage.opposite());
        // The server's address may differ from the one asked where a dataplane translates beside the probe.
        let own = here().find(|(_, e)| e.server == seen.source).or_else(|| here().next());
        if let Some((at, _)) = own {
            self.answer_here(&key, at, seen, message);
            return;
        }
        let unanswered = |e: &Entry| e.waiting().is_some_and(|w| w.elsewhere.is_none());
        let copy = waiting()
            .find(|(_, e)| e.server == seen.source)
            .or_else(|| waiting().find(|(_, e)| unanswered(e)))
            .or_else(|| waiting().next());
        if let Some((at, _)) = copy {
            self.answer_elsewhere(&key, at, seen, message);
            return;
        }
        let masqueraded = matching().find_map(|(_, e)| match e.state {
            State::Masqueraded(of) => Some((of, &e.question)),
            _ => None,
        });
        if let Some((of, question)) = masqueraded {
            let group = self.groups.get(&of).map_or(&[][..], Vec::as_slice);
            if let Some(at) = group.iter().position(|e| e.waiting().is_some() && e.question == *question) {
                self.answer_elsewhere(&of, at, seen, message);
            }
        } else if matching().next().is_none() {
            self.unmatched += 1;
            if let Some(question) = asked {
                self.remember(key, seen.vantage, seen.source, question, State::Orphan);
            }
        }
    }

    /// Settles what has timed out, and forgets what was settled long ago.
    pub(super) fn expire(&mut self, now_ns: u64) {
        self.newest_ns = self.newest_ns.max(now_ns);
        self.settle_overdue(self.config.timeout_ns.saturating_add(GRACE_NS));
        while let Some((&due, &key)) = self.recent.first_key_value() {
            if due.0 > self.newest_ns && self.recent.len() <= self.config.max_recent {
                break;
            }
            self.recent.remove(&due);
            self.forget(due, &key);
        }
    }

    /// Of the transactions that were answered so far, ns.
    pub(super) const fn latency(&self) -> &Hist {
        self.books.latency()
    }

    /// Ends a window: yields what it came to. What waits for its answer, and what is remembered, belongs to the next one; a
    /// transaction is counted in the window in which it ends.
    pub(super) fn turn(&mut self, now_ns: u64) -> Self {
        self.expire(now_ns);
        let mut closed = self.books.turn();
        for (due, key) in &self.waiting {
            let entry = self.groups.get_mut(key).and_then(|g| g.iter_mut().find(|e| e.due == *due));
            let Some(Entry { question, state: State::Waiting(w), .. }) = entry else { continue };
            w.rows = self.books.take_over(&mut closed, w.rows, w.begun, question);
        }
        Self { books: closed, unmatched: std::mem::take(&mut self.unmatched), ..Self::new(self.config) }
    }

    /// Closes the books, see [`super::DnsTracker::finish`].
    pub(super) fn finish(mut self, end_ns: u64, start_ns: u64, top_n: usize) -> DnsOutcome {
        let mut pending = 0;
        for (due, key) in std::mem::take(&mut self.waiting) {
            let Some(at) = self.groups.get(&key).and_then(|g| g.iter().position(|e| e.due == due)) else {
                continue;
            };
            let overdue = end_ns.saturating_sub(due.0) >= self.config.timeout_ns;
            if overdue || self.verdict(&key, at).is_some() {
                self.close(&key, at);
            } else {
                pending += 1;
            }
        }
        let mut outcome = self.books.finish(pending, start_ns, top_n);
        outcome.losses.unmatched = self.unmatched;
        outcome
    }

    fn recognise(&self, key: &GroupKey, seen: &Sighting, question: &Question) -> Known {
        let group = self.groups.get(key).map_or(&[][..], Vec::as_slice);
        let same = || {
            group
                .iter()
                .enumerate()
                .filter(|(_, e)| e.question == *question && !matches!(e.state, State::Orphan))
        };
        let in_time = |w: &Waiting| seen.ts_ns.saturating_sub(w.asked_ns) < self.config.timeout_ns;
        let here = |e: &Entry| e.vantage == seen.vantage;
        let asked = || same().filter_map(|(at, e)| Some((at, e, e.waiting()?)));
        let same_server = || asked().filter(|(_, e, _)| e.server == seen.destination);
        if let Some((at, e, w)) = same_server().find(|(_, e, _)| here(e)) {
            let answered = w.elsewhere.is_some() && !self.seeing.contains(&e.vantage);
            return if in_time(w) && !answered { Known::Retry(at) } else { Known::After(at) };
        }
        if let Some((at, ..)) = same_server().find(|(_, _, w)| in_time(w)) {
            return Known::Copy(at);
        }
        if let Some((_, e)) = same().find(|(_, e)| here(e)) {
            let masqueraded = matches!(e.state, State::Masqueraded(_));
            return if masqueraded { Known::Seen } else { Known::New };
        }
        if let Some((at, ..)) = asked().find(|(_, _, w)| in_time(w)) {
            return Known::Copy(at);
        }
        if same().any(|(_, e)| e.waiting().is_none()) {
            return Known::Seen;
        }
        self.unmasquerade(key, seen, question).map_or(Known::New, Known::Masqueraded)
    }

    /// The transaction whose query left by another interface with another client address.
    fn unmasquerade(&self, key: &GroupKey, seen: &Sighting, question: &Question) -> Option<GroupKey> {
        if seen.vantage.direction != Direction::Out {
            return None;
        }
        let of = *self.received.get(&(key.transport, key.id, question.clone()))?;
        let just_sent = |w: &Waiting| seen.ts_ns.abs_diff(w.sent_ns) < FORWARD_NS;
        let is_it = |e: &Entry| {
            e.question == *question
                && (e.server == seen.destination || of.client.port() == key.client.port())
                && e.vantage.netns == seen.vantage.netns
                && e.vantage.ifindex != seen.vantage.ifindex
                && e.waiting().is_some_and(just_sent)
        };
        self.groups.get(&of)?.iter().any(is_it).then_some(of)
    }

    fn begin(&mut self, key: GroupKey, seen: &Sighting, message: &Message, question: &Question) {
        if self.waiting.len() >= self.config.max_waiting {
            self.settle_overdue(self.config.timeout_ns);
        }
        if self.waiting.len() >= self.config.max_waiting || !self.make_room(&key) {
            self.books.table_full();
            return;
        }
        let (rows, begun) = self.books.begin(seen, question, message.edns);
        let due = self.due(seen.ts_ns);
        self.waiting.insert(due, key);
        if seen.vantage.direction == Direction::In {
            self.received.insert((key.transport, key.id, question.clone()), key);
        }
        let asked_ns = seen.ts_ns;
        self.groups.entry(key).or_default().push(Entry {
            due,
            vantage: seen.vantage,
            server: seen.destination,
            question: question.clone(),
            state: State::Waiting(Waiting {
                asked_ns,
                sent_ns: asked_ns,
                retries: 0,
                rows,
                begun,
                elsewhere: None,
            }),
        });
    }

    /// Whether the group can take one more entry; forgets a settled one if need be.
    fn make_room(&mut self, key: &GroupKey) -> bool {
        let Some(group) = self.groups.get_mut(key).filter(|g| g.len() >= MAX_GROUP) else { return true };
        let Some(at) = group.iter().position(|e| e.waiting().is_none()) else { return false };
        let gone = group.remove(at);
        self.recent.remove(&gone.due);
        true
    }

    /// The packet was seen at another vantage before the one that its record came first from.
    fn adopt_earlier(&mut self, key: &GroupKey, at: usize, seen: &Sighting) {
        let serial = self.serial;
        let Some(entry) = self.entry_mut(key, at) else { return };
        let State::Waiting(w) = &mut entry.state else { return };
        if seen.ts_ns >= w.asked_ns || w.retries > 0 || w.elsewhere.is_some() {
            return;
        }
        w.asked_ns = seen.ts_ns;
        entry.vantage = seen.vantage;
        let old = std::mem::replace(&mut entry.due, (seen.ts_ns, serial));
        self.serial += 1;
        self.waiting.remove(&old);
        self.waiting.insert((seen.ts_ns, serial), *key);
    }

    /// The answer of a transaction at its own vantage.
    fn answer_here(&mut self, key: &GroupKey, at: usize, seen: &Sighting, message: &Message) {
        if self.seeing.len() < MAX_VANTAGES {
            self.seeing.insert(seen.vantage.opposite());
        }
        let Some(w) = self.entry_mut(key, at).and_then(Entry::waiting_mut) else { return };
        let answered = w.answered(seen.ts_ns, message);
        self.settle(key, at, Some(answered));
    }

    /// The answer of a transaction at another vantage.
    fn answer_elsewhere(&mut self, key: &GroupKey, at: usize, seen: &Sighting, message: &Message) {
        if let Some(w) = self.entry_mut(key, at).and_then(Entry::waiting_mut) {
            let answered = w.answered(seen.ts_ns, message);
            w.elsewhere.get_or_insert(answered);
        }
    }

    /// Remembers what is no transaction, so that it is known when it is seen again.
    fn remember(
        &mut self,
        key: GroupKey,
        vantage: Vantage,
        server: SocketAddr,
        question: &Question,
        state: State,
    ) {
        if !self.make_room(&key) {
            return;
        }
        let due = self.due(self.newest_ns.saturating_add(self.config.timeout_ns));
        self.recent.insert(due, key);
        let entry = Entry { due, vantage, server, question: question.clone(), state };
        self.groups.entry(key).or_default().push(entry);
    }

    fn settle_overdue(&mut self, after_ns: u64) {
        while let Some((&due, &key)) = self.waiting.first_key_value() {
            if self.newest_ns.saturating_sub(due.0) < after_ns {
                break;
            }
            self.waiting.remove(&due);
            if let Some(at) = self.groups.get(&key).and_then(|g| g.iter().position(|e| e.due == due)) {
                self.close(&key, at);
            }
        }
    }

    /// Settles a transaction that got no answer at its own vantage.
    fn close(&mut self, key: &GroupKey, at: usize) {
        let verdict = self.verdict(key, at);
        self.settle(key, at, verdict);
    }

    /// The answer seen elsewhere, where the transaction's own vantage sees none.
    fn verdict(&self, key: &GroupKey, at: usize) -> Option<Answered> {
        let entry = self.groups.get(key)?.get(at)?;
        if self.seeing.contains(&entry.vantage) { None } else { entry.waiting()?.elsewhere }
    }

    /// Enters the end of a transaction in the books; an answer that came too late is none.
    fn settle(&mut self, key: &GroupKey, at: usize, answer: Option<Answered>) {
        let forget_ns = self.newest_ns.saturating_add(self.config.timeout_ns);
        let due = self.due(forget_ns);
        let Some(entry) = self.groups.get_mut(key).and_then(|g| g.get_mut(at)) else { return };
        let State::Waiting(w) = std::mem::replace(&mut entry.state, State::Settled) else { return };
        self.waiting.remove(&entry.due);
        entry.due = due;
        self.recent.insert(due, *key);
        let received = (key.transport, key.id, entry.question.clone());
        if self.received.get(&received) == Some(key) {
            self.received.remove(&received);
        }
        let settled = Settled {
            asked_ns: w.asked_ns,
            client: key.client,
            server: entry.server,
            transport: key.transport,
            question: received.2,
            retries: w.retries,
            answer: answer.filter(|a| a.latency_ns < self.config.timeout_ns),
        };
        self.books.settle(w.rows, settled);
    }

    fn forget(&mut self, due: Due, key: &GroupKey) {
        if let Some(group) = self.groups.get_mut(key) {
            group.retain(|e| e.due != due);
            if group.is_empty() {
                self.groups.remove(key);
            }
        }
    }

    fn entry_mut(&mut self, key: &GroupKey, at: usize) -> Option<&mut Entry> {
        self.groups.get_mut(key)?.get_mut(at)
    }

    fn due(&mut self, ns: u64) -> Due {
        self.serial += 1;
        (ns, self.serial)
    }
}

impl Waiting {
    fn answered(&self, ts_ns: u64, message: &Message) -> Answered {
        Answered {
            latency_ns: ts_ns.saturating_sub(self.asked_ns),
            rcode: message.rcode,
            truncated: message.truncated,
        }
    }
}
