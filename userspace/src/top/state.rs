//! What is on the screen, as a value: what came, and what keys made of it.
//!
//! Needs [`Update`]s, keys and a size; yields the next [`State`]. It reads no clock: who calls says what time it is.

use super::{Theme, Update, graph::SPAN_MS, sheet};
use crate::{live::Frame, recommend::Finding, report::view::clean};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::{collections::VecDeque, sync::Arc};

/// Frames that are kept: those of the graphs' time, and no more than that of an agent with very short windows.
const MAX_FRAMES: usize = 1_500;
/// Rows that a table of a frame may have: an agent is not trusted to keep to fewer.
const MAX_ROWS: usize = 1_000;
/// Characters of a filter.
const MAX_FILTER: usize = 60;
/// Tables that a view has at most.
pub(super) const PARTS: usize = 2;
/// No window for so long is stale: so many windows, but at least so many ms.
const STALE_WINDOWS: u64 = 3;
const STALE_MS: u64 = 5_000;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tab {
    /// Everything, in a line each.
    #[default]
    Overview,
    /// Latencies by signal and scope.
    Signals,
    /// Resolvers and names.
    Dns,
    /// Remote addresses.
    Tcp,
    /// Drops, and connection tracking.
    Drops,
    /// The slowest packets.
    Slow,
    /// What is to be changed.
    Findings,
}

impl Tab {
    /// All, in the order of their keys.
    pub const ALL: [Self; 7] =
        [Self::Overview, Self::Signals, Self::Dns, Self::Tcp, Self::Drops, Self::Slow, Self::Findings];

    /// What it is called.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Overview => "Overview",
            Self::Signals => "Signals",
            Self::Dns => "DNS",
            Self::Tcp => "TCP",
            Self::Drops => "Drops",
            Self::Slow => "Slow",
            Self::Findings => "Findings",
        }
    }

    /// The next one, or with `back` the one before; around the ends.
    fn beside(self, back: bool) -> Self {
        let step = if back { Self::ALL.len() - 1 } else { 1 };
        Self::ALL[(self as usize + step) % Self::ALL.len()]
    }
}

/// Where frames come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A capture of this process.
    Own,
    /// An agent, at a URL.
    Agent(String),
}

/// How one table is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looks {
    /// The row that is marked.
    pub(super) cursor: usize,
    /// The column that rows are sorted by; none for the order in which they came.
    pub(super) sort: Option<usize>,
    /// The other way round.
    pub(super) reversed: bool,
    /// Words that a row must have, all of them.
    pub(super) filter: String,
}

/// What keys are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// To move.
    #[default]
    Look,
    /// To type a filter.
    Filter,
    /// To leave the help.
    Help,
    /// To move in the text of one finding, from this line on.
    Finding(usize),
}

/// What is on the screen.
#[derive(Clone, Debug)]
pub struct State {
    pub(super) source: Source,
    pub(super) theme: Theme,
    /// Columns and rows of the screen.
    pub(super) size: (u16, u16),
    /// The last minutes, oldest first.
    pub(super) frames: VecDeque<Arc<Frame>>,
    /// The frame at which somebody pressed pause.
    pub(super) held: Option<Arc<Frame>>,
    /// None before they were judged.
    pub(super) findings: Option<Arc<Vec<Finding>>>,
    /// Why nothing comes.
    pub(super) lost: Option<String>,
    /// The last line of the log.
    pub(super) note: Option<String>,
    /// When the last frame came, ms on the caller's clock.
    pub(super) heard_ms: u64,
    pub(super) tab: Tab,
    /// By view, the table that keys are for.
    parts: [usize; Tab::ALL.len()],
    looks: [[Looks; PARTS]; Tab::ALL.len()],
    pub(super) mode: Mode,
    quit: bool,
}

impl State {
    /// Before anything came.
    #[must_use]
    pub fn new(source: Source, theme: Theme, now_ms: u64) -> Self {
        Self {
            source,
            theme,
            size: (80, 24),
            frames: VecDeque::new(),
            held: None,
            findings: None,
            lost: None,
            note: None,
            heard_ms: now_ms,
            tab: Tab::default(),
            parts: [0; Tab::ALL.len()],
            looks: Default::default(),
            mode: Mode::default(),
            quit: false,
        }
    }

    /// Whether somebody asked for the end.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.quit
    }

    /// The frame that is shown: the latest, or the one at which somebody pressed pause.
    #[must_use]
    pub fn frame(&self) -> Option<&Frame> {
        self.held.as_ref().or(self.frames.back()).map(|frame| &**frame)
    }

    /// Frames up to the one that is shown, oldest first.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Frame> {
        let end = self.frame().map_or(0, |frame| frame.at_unix_ms);
        self.frames.iter().map(|frame| &**frame).filter(move |frame| frame.at_unix_ms <= end)
    }

    /// How long nothing came, ms, when that is too long.
    #[must_use]
    pub fn stale_ms(&self, now_ms: u64) -> Option<u64> {
        let window_ms = self.frames.back().map_or(0, |frame| frame.window_ms);
        let age_ms = now_ms.saturating_sub(self.heard_ms);
        (age_ms > window_ms.saturating_mul(STALE_WINDOWS).max(STALE_MS)).then_some(age_ms)
    }

    /// The table that keys are for, and how it is looked at.
    pub(super) fn part(&self) -> usize {
        self.parts[self.tab as usize]
    }

    pub(super) fn looks(&self, part: usize) -> &Looks {
        &self.looks[self.tab as usize][part.min(PARTS - 1)]
    }

    /// The finding that is marked.
    pub(super) fn finding(&self) -> Option<&Finding> {
        let findings = self.findings.as_ref()?;
        let sheet = sheet::findings(Some(findings));
        let row = *sheet.rows(&self.looks[Tab::Findings as usize][0]).get(self.cursor())?;
        findings.get(row)
    }

    /// The marked row, as far as there are rows.
    fn cursor(&self) -> usize {
        self.looks(self.part()).cursor
    }

    /// Something is new.
    #[must_use]
    pub fn update(mut self, update: Update, now_ms: u64) -> Self {
        match update {
            Update::History(frames) => {
                // An agent that was started anew, or whose clock was set back, has no future.
                let last = frames.last().map_or(0, |frame| frame.at_unix_ms);
                self.frames.retain(|frame| frame.at_unix_ms <= last);
                // What the graphs have room for; the rest is the page's.
                let from = last.saturating_sub(SPAN_MS);
                self.lost = None;
                self.heard_ms = now_ms;
                frames.into_iter().filter(|f| f.at_unix_ms >= from).for_each(|frame| self.push(frame));
            }
            Update::Frame(frame) => {
                self.lost = None;
                self.heard_ms = now_ms;
                self.push(*frame);
            }
            Update::Findings(mut findings) => {
                findings.truncate(MAX_ROWS);
                self.findings = Some(Arc::new(findings));
            }
            Update::Lost(why) => self.lost = Some(clean(&why)),
        }
        self.settled()
    }

    /// There is a line in the log.
    #[must_use]
    pub fn noted(self, line: Option<&str>) -> Self {
        Self { note: line.map(clean), ..self }
    }

    /// The screen has a size.
    #[must_use]
    pub fn sized(self, columns: u16, rows: u16) -> Self {
        Self { size: (columns, rows), ..self }.settled()
    }

    fn push(&mut self, mut frame: Frame) {
        bound(&mut frame);
        if self.frames.back().is_some_and(|last| last.at_unix_ms >= frame.at_unix_ms) {
            // It is there already, or the clock was set back: what comes now is what is shown.
            let at = frame.at_unix_ms;
            self.frames.retain(|f| f.at_unix_ms < at);
        }
        let from = frame.at_unix_ms.saturating_sub(SPAN_MS);
        self.frames.push_back(Arc::new(frame));
        while self.frames.len() > MAX_FRAMES || self.frames.front().is_some_and(|f| f.at_unix_ms < from) {
            self.frames.pop_front();
        }
    }

    /// A key was pressed.
    #[must_use]
    pub fn key(mut self, key: KeyEvent) -> Self {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c' | 'C')) {
            self.quit = true;
            return self;
        }
        // With Control or Alt a letter is another key.
        let plain = key.modifiers.difference(KeyModifiers::SHIFT).is_empty();
        match self.mode {
            _ if !plain => {}
            Mode::Look => self.look(key.code),
            Mode::Filter => self.type_filter(key.code),
            Mode::Help if key.code == KeyCode::Char('q') => self.quit = true,
            Mode::Help => self.mode = Mode::Look,
            Mode::Finding(line) => self.read(key.code, line),
        }
        self.settled()
    }

    fn look(&mut self, code: KeyCode) {
        let part = self.part();
        let page = usize::from(self.size.1 / 2).max(1);
        match code {
            KeyCode::Char('q') => self.quit = true,
            KeyCode::Char('?') | KeyCode::F(1) => self.mode = Mode::Help,
            KeyCode::Char(' ') => {
                self.held = if self.held.is_some() { None } else { self.frames.back().cloned() };
            }
            KeyCode::Char(digit @ '1'..='7') => self.tab = Tab::ALL[digit as usize - '1' as usize],
            KeyCode::Tab => self.tab = self.tab.beside(false),
            KeyCode::BackTab => self.tab = self.tab.beside(true),
            KeyCode::Left | KeyCode::Char('h') => self.parts[self.tab as usize] = part.saturating_sub(1),
            KeyCode::Right | KeyCode::Char('l') => self.parts[self.tab as usize] = part + 1,
            KeyCode::Up | KeyCode::Char('k') => self.moved(|cursor| cursor.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.moved(|cursor| cursor + 1),
            KeyCode::PageUp => self.moved(|cursor| cursor.saturating_sub(page)),
            KeyCode::PageDown => self.moved(|cursor| cursor + page),
            KeyCode::Home | KeyCode::Char('g') => self.moved(|_| 0),
            KeyCode::End | KeyCode::Char('G') => self.moved(|_| usize::MAX),
            KeyCode::Char('<') => self.sort(true),
            KeyCode::Char('>') => self.sort(false),
            KeyCode::Char('r') => {
                let looks = self.looks_mut();
                looks.reversed = !looks.reversed;
            }
            KeyCode::Char('/') if self.tab != Tab::Overview => self.mode = Mode::Filter,
            KeyCode::Esc => self.looks_mut().filter.clear(),
            KeyCode::Enter if self.tab == Tab::Findings && self.finding().is_some() => {
                self.mode = Mode::Finding(0);
            }
            _ => {}
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        let filter = &mut self.looks_mut().filter;
        match code {
            KeyCode::Char(c) if filter.chars().count() < MAX_FILTER => filter.push(c),
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Esc => {
                filter.clear();
                self.mode = Mode::Look;
            }
            KeyCode::Enter => self.mode = Mode::Look,
            _ => {}
        }
    }

    fn read(&mut self, code: KeyCode, line: usize) {
        let page = usize::from(self.size.1 / 2).max(1);
        let line = match code {
            KeyCode::Char('q') => {
                self.quit = true;
                line
            }
            KeyCode::Up | KeyCode::Char('k') => line.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => line + 1,
            KeyCode::PageUp => line.saturating_sub(page),
            KeyCode::PageDown | KeyCode::Char(' ') => line + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            KeyCode::Esc | KeyCode::Enter | KeyCode::Left | KeyCode::Backspace => {
                self.mode = Mode::Look;
                return;
            }
            _ => line,
        };
        self.mode = Mode::Finding(line);
    }

    fn looks_mut(&mut self) -> &mut Looks {
        let part = self.part().min(PARTS - 1);
        &mut self.looks[self.tab as usize][part]
    }

    fn moved(&mut self, to: impl FnOnce(usize) -> usize) {
        let looks = self.looks_mut();
        looks.cursor = to(looks.cursor);
    }

    /// By the next column, or the one before; past the last it is the order in which rows came.
    fn sort(&mut self, back: bool) {
        let Some(columns) = self.sheets().get(self.part()).map(|sheet| sheet.table.columns.len()) else {
            return;
        };
        let looks = self.looks_mut();
        let place = looks.sort.map_or(0, |column| column + 1);
        let next = (place + if back { columns } else { 1 }) % (columns + 1);
        looks.sort = next.checked_sub(1);
        looks.reversed = false;
    }

    /// The tables of what is looked at; none before the first frame.
    pub(super) fn sheets(&self) -> Vec<sheet::Sheet> {
        sheet::of(self.tab, self.frame(), self.findings.as_deref())
    }

    /// Rows that the table or text has that keys move in.
    fn extent(&self) -> usize {
        match self.tab {
            Tab::Overview => super::overview::rows(self),
            _ => self.sheets().get(self.part()).map_or(0, |sheet| sheet.rows(self.looks(self.part())).len()),
        }
    }

    /// What points at something points at something that is there.
    fn settled(mut self) -> Self {
        let last_part = self.sheets().len().saturating_sub(1);
        let part = &mut self.parts[self.tab as usize];
        *part = (*part).min(last_part).min(PARTS - 1);
        let last = self.extent().saturating_sub(1);
        let looks = self.looks_mut();
        looks.cursor = looks.cursor.min(last);
        if let Mode::Finding(line) = self.mode {
            let lines = self.finding().map(|finding| sheet::details(finding, self.size.0).len());
            let room = usize::from(self.size.1.saturating_sub(super::draw::FRAME));
            self.mode = lines.map_or(Mode::Look, |n| Mode::Finding(line.min(n.saturating_sub(room.max(1)))));
        }
        self
    }
}

/// A frame's tables are as long as what came; a screen has no use for more.
fn bound(frame: &mut Frame) {
    frame.signals.truncate(MAX_ROWS);
    frame.dns.rcodes.truncate(MAX_ROWS);
    frame.dns.servers.truncate(MAX_ROWS);
    frame.dns.names.truncate(MAX_ROWS);
    frame.tcp.peers.truncate(MAX_ROWS);
    frame.drops.truncate(MAX_ROWS);
    frame.conntrack.truncate(MAX_ROWS);
    frame.slowest.truncate(MAX_ROWS);
    frame.losses.truncate(MAX_ROWS);
}
