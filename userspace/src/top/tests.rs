//! The screen as people see it, and keys as they press them.

use super::{
    Source, State, Tab, Theme, Update, draw,
    state::{Looks, Mode},
};
use crate::{
    live::Frame,
    probes::{self, PROBES},
    recommend::{self, Finding, Profile},
    report,
    snapshot::{Probe, Snapshot, sample},
};
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

const UTF8: Theme = Theme { utf8: true, color: true };
const ASCII: Theme = Theme { utf8: false, color: false };
const SIZES: [(u16, u16); 3] = [(80, 24), (60, 15), (200, 50)];

fn frame(snapshot: &Snapshot, n: u64) -> Frame {
    let mut frame = Frame::of(snapshot);
    frame.at_unix_ms += n * 5_000;
    frame.window_ms = 5_000;
    // A wave, so that graphs have something to show.
    let wave = [1, 2, 5, 10, 20, 50, 20, 10, 5, 2][(n % 10) as usize];
    for signal in &mut frame.signals {
        signal.p99_ns = signal.p99_ns.saturating_mul(wave).min(signal.max_ns);
        signal.p999_ns = signal.p999_ns.max(signal.p99_ns);
    }
    frame
}

/// Of a node on which every probe ran.
fn findings() -> Vec<Finding> {
    let probe = |probe: &probes::Probe| Probe {
        name: probe.name.to_owned(),
        source: Some("test".to_owned()),
        yields: Vec::new(),
        reason: None,
    };
    let mut snapshot = sample::rich();
    snapshot.probes = PROBES.iter().map(probe).collect();
    snapshot.meta.filter = None;
    recommend::advise(&snapshot, Profile::Balanced)
}

/// After two minutes on a node on which everything happens.
fn state(theme: Theme) -> State {
    let frames = (0..24).map(|n| frame(&sample::rich(), n)).collect();
    State::new(Source::Agent("http://127.0.0.1:9464".to_owned()), theme, 0)
        .update(Update::History(frames), 1_000)
        .update(Update::Findings(findings()), 1_000)
}

fn code(state: State, code: KeyCode) -> State {
    state.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn press(state: State, keys: &str) -> State {
    keys.chars().fold(state, |state, c| {
        code(
            state,
            match c {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                '↓' => KeyCode::Down,
                '↑' => KeyCode::Up,
                '→' => KeyCode::Right,
                '←' => KeyCode::Left,
                c => KeyCode::Char(c),
            },
        )
    })
}

fn drawn_at(state: State, (columns, rows): (u16, u16), now_ms: u64) -> TestBackend {
    let state = state.sized(columns, rows);
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw::draw(&state, now_ms, frame.buffer_mut())).unwrap();
    terminal.backend().clone()
}

/// Lines without the spaces at their ends.
fn drawn(state: State, size: (u16, u16)) -> String {
    let buffer = drawn_at(state, size, 1_500).buffer().clone();
    let lines = buffer.content().chunks(usize::from(size.0)).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_view_at_every_size() {
    for (tab, key) in Tab::ALL.iter().zip('1'..) {
        for size in SIZES {
            let text = drawn(press(state(UTF8), &key.to_string()), size);
            let name = format!("{}-{}x{}", tab.title().to_lowercase(), size.0, size.1);
            insta::assert_snapshot!(name, text);
        }
    }
}

#[test]
fn other_screens() {
    let is = |name: &str, state: State, size| insta::assert_snapshot!(name, drawn(state, size));
    is("ascii-60x15", state(ASCII), (60, 15));
    is("help-60x15", press(state(UTF8), "?"), (60, 15));
    is("details-80x24", press(state(UTF8), "7\n"), (80, 24));
    is("details-60x15", press(state(UTF8), "7\n↓↓↓"), (60, 15));
    is("sorted-80x24", press(state(UTF8), "2>>>>>>r"), (80, 24));
    is("filtered-80x24", press(state(UTF8), "2/rx eth0\n"), (80, 24));
    is("filtering-60x15", press(state(UTF8), "3/nothing"), (60, 15));
    is("names-60x15", press(state(UTF8), "3→"), (60, 15));
    let waiting = State::new(Source::Own, UTF8, 0);
    is("waiting-80x24", waiting, (80, 24));
    let nothing = State::new(Source::Own, UTF8, 0);
    is("nothing-80x24", nothing.update(Update::Frame(Box::new(Frame::of(&sample::empty()))), 0), (80, 24));
    let hostile = Update::Frame(Box::new(frame(&sample::hostile(), 0)));
    is("hostile-80x24", State::new(Source::Own, UTF8, 0).update(hostile, 0), (80, 24));
}

#[test]
fn what_is_written_for_scripts() {
    let options = report::Options::default();
    let text = super::plain::text(&frame(&sample::rich(), 0), Some(&findings()), &options);
    insta::assert_snapshot!("plain", text);
    assert!(text.lines().all(|line| line.trim_end() == line));
}

#[test]
fn a_stale_or_lost_agent_is_said() {
    let head = |state: State, now_ms| {
        let backend = drawn_at(state, (80, 24), now_ms);
        let line: String = (0..80).map(|x| backend.buffer()[(x, 0)].symbol().to_owned()).collect();
        (line, backend.buffer()[(79, 0)].fg)
    };
    let (line, color) = head(state(UTF8), 2_000);
    assert!(line.contains("window 5.00 s") && color == Color::Reset, "{line}");
    let (line, color) = head(state(UTF8), 17_000);
    assert!(line.contains("STALE: no window for 16.0 s") && color == Color::Red, "{line}");
    let lost =
        state(UTF8).update(Update::Lost("cannot connect to \u{1b}[2J127.0.0.1:9464".to_owned()), 2_000);
    let (line, color) = head(lost.clone(), 2_000);
    assert!(line.contains("LOST: cannot connect to \\u{1b}[2J127.0.0.1:9464; trying again"), "{line}");
    assert_eq!(color, Color::Red);
    let back = lost.update(Update::Frame(Box::new(frame(&sample::rich(), 30))), 9_000);
    assert!(head(back, 9_100).0.contains("window 5.00 s"));
}

#[test]
fn without_colour_there_is_none_and_trouble_is_words() {
    for tab in '1'..='7' {
        let backend = drawn_at(press(state(ASCII), &tab.to_string()), (80, 24), 90_000);
        for cell in backend.buffer().content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
            assert!(cell.symbol().is_ascii(), "{}", cell.symbol());
        }
    }
}

#[test]
fn keys_change_the_view() {
    let state = state(UTF8);
    let tab = |keys: &str| press(state.clone(), keys).tab;
    assert_eq!(tab("3"), Tab::Dns);
    assert_eq!(tab("\t"), Tab::Signals);
    assert_eq!(tab("\t\t\t\t\t\t\t"), Tab::Overview);
    assert_eq!(code(state.clone(), KeyCode::BackTab).tab, Tab::Findings);
    assert_eq!(tab("9"), Tab::Overview);
    for quit in ["q", "?q", "7\nq"] {
        assert!(press(state.clone(), quit).is_over(), "{quit}");
    }
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    for mode in ["", "?", "7\n", "2/q"] {
        let state = press(state.clone(), mode);
        assert!(!state.is_over() && state.key(interrupt).is_over(), "{mode}");
    }
    // A letter with Alt is another key.
    let alt = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::ALT);
    assert!(!state.key(alt).is_over());
}

/// Texts of a column as they are shown.
fn column(state: &State, column: usize) -> Vec<String> {
    let sheet = state.sheets().remove(state.part());
    let text = |row: usize| sheet.table.rows[row][column].text.clone();
    sheet.rows(state.looks(state.part())).into_iter().map(text).collect()
}

#[test]
fn rows_are_sorted_by_any_column_both_ways() {
    let state = press(state(UTF8), "2");
    let by = |keys: &str| press(state.clone(), keys);
    let counts = |state: &State| -> Vec<u64> {
        column(state, 8).iter().map(|text| text.replace(',', "").parse().unwrap()).collect()
    };
    // Backwards, the last column is the first; numbers begin with the largest.
    let most = counts(&by("<"));
    assert!(most.len() > 10 && most.is_sorted_by(|a, b| a >= b), "{most:?}");
    assert!(counts(&by("<r")).is_sorted());
    let names = column(&by(">"), 0);
    assert!(names.is_sorted() && names[0] == "ct.confirm", "{names:?}");
    assert!(column(&by(">r"), 0).is_sorted_by(|a, b| a >= b));
    // Around the end it is the order in which rows came.
    assert_eq!(column(&by("<>"), 0), column(&state, 0));
    let mut turned = column(&state, 0);
    turned.reverse();
    assert_eq!(column(&by("r"), 0), turned);
}

#[test]
fn rows_are_filtered_by_words() {
    let typed = press(state(UTF8), "2/RX eth0");
    assert_eq!(typed.mode, Mode::Filter);
    assert_eq!(column(&typed, 0), ["rx.stack", "rx.socket"]);
    let kept = press(typed.clone(), "\n");
    assert_eq!((kept.mode, column(&kept, 0).len()), (Mode::Look, 2));
    assert_eq!(kept.looks(0).filter, "RX eth0");
    let corrected = code(typed.clone(), KeyCode::Backspace);
    assert_eq!(corrected.looks(0).filter, "RX eth");
    for state in [press(typed, "\u{1b}"), press(kept.clone(), "\u{1b}")] {
        assert_eq!((state.mode, state.looks(0)), (Mode::Look, &Looks::default()));
    }
    // Another view has its own, and the overview none.
    assert_eq!(press(kept, "3").looks(0).filter, "");
    assert_eq!(press(state(UTF8), "/").mode, Mode::Look);
    let endless = press(state(UTF8), &format!("2/{}", "x".repeat(500)));
    assert!(endless.looks(0).filter.len() < 100);
}

#[test]
fn pause_holds_what_is_shown_and_keeps_what_comes() {
    let paused = press(state(UTF8), " ");
    let at = paused.frame().unwrap().at_unix_ms;
    let later = paused.update(Update::Frame(Box::new(frame(&sample::rich(), 40))), 2_000);
    assert_eq!(later.frame().unwrap().at_unix_ms, at);
    assert!(drawn(later.clone(), (80, 24)).contains("PAUSED"));
    assert_eq!(later.shown().last().unwrap().at_unix_ms, at);
    let on = press(later, " ");
    assert_eq!(on.frame().unwrap().at_unix_ms, at + 17 * 5_000);
}

#[test]
fn the_marked_row_is_one_that_is_there() {
    let state = press(state(UTF8), "2");
    let rows = column(&state, 0).len();
    let down = code(state, KeyCode::End);
    assert_eq!(down.looks(0).cursor, rows - 1);
    assert_eq!(press(down.clone(), "↓").looks(0).cursor, rows - 1);
    assert_eq!(
        press(down.clone(), "/eth0").looks(0).cursor,
        column(&press(down.clone(), "/eth0"), 0).len() - 1
    );
    let empty = down.update(Update::Frame(Box::new(Frame::of(&sample::empty()))), 3_000);
    assert_eq!(empty.looks(0).cursor, 0);
    // It is on the screen, wherever it is.
    let backend = drawn_at(press(code(self::state(UTF8), KeyCode::Char('2')), "G"), (60, 15), 0);
    let reversed = |y: u16| backend.buffer()[(0, y)].modifier.contains(Modifier::REVERSED);
    assert_eq!((2..14).filter(|y| reversed(*y)).count(), 1);
}

#[test]
fn a_finding_tells_the_exact_change() {
    let first = findings().remove(0);
    assert!(first.verdict.is_urgent() && !first.changes.is_empty(), "{first:?}");
    let text = drawn(press(state(UTF8), "7\n"), (200, 50));
    assert!(text.contains(&first.changes[0].apply) && text.contains(&first.changes[0].undo), "{text}");
    assert!(text.contains(&first.evidence[0].value), "{text}");
    // The end of the text is the end of moving.
    let end = press(state(UTF8).sized(60, 15), "7\nG");
    let Mode::Finding(line) = end.mode else { panic!("{:?}", end.mode) };
    assert_eq!(press(end.clone(), "↓").mode, Mode::Finding(line));
    assert_eq!(press(end.clone(), "↑").mode, Mode::Finding(line - 1));
    assert_eq!(press(end, "\u{1b}").mode, Mode::Look);
    // Nothing is opened where nothing is marked.
    assert_eq!(press(state(UTF8), "7/no such finding\n\n").mode, Mode::Look);
}

#[test]
fn a_clock_that_is_set_back_shows_what_comes() {
    let state = state(UTF8);
    let before = state.frame().unwrap().at_unix_ms;
    let mut back = frame(&sample::rich(), 0);
    back.at_unix_ms -= 3_600_000;
    let at = back.at_unix_ms;
    let state = state.update(Update::Frame(Box::new(back)), 2_000);
    assert!(at < before);
    assert_eq!((state.frame().unwrap().at_unix_ms, state.shown().count()), (at, 1));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut state = State::new(Source::Own, UTF8, 0);
    let mut frame = Frame { window_ms: 1, ..Frame::of(&sample::rich()) };
    frame.slowest = vec![frame.slowest[0].clone(); 5_000];
    for _ in 0..5 {
        let frames =
            (0..2_000).map(|n| Frame { at_unix_ms: frame.at_unix_ms + n, ..Frame::default() }).collect();
        state = state.update(Update::History(frames), 0);
    }
    assert!(state.shown().count() <= 1_500);
    frame.at_unix_ms += 10_000;
    let state = state.update(Update::Frame(Box::new(frame)), 0);
    assert_eq!(state.frame().unwrap().slowest.len(), 1_000);
}

#[derive(Clone, Debug)]
enum Step {
    Key(KeyCode, bool),
    Size(u16, u16),
    Frame(usize, u64),
    History(Vec<u64>),
    Findings(usize),
    Lost(String),
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let known = prop::sample::select(vec![
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Backspace,
        KeyCode::F(1),
    ]);
    let command = prop::sample::select("1234567<>r/ ?gGhjkl".chars().collect::<Vec<_>>());
    prop_oneof![
        4 => known.prop_map(|key| Step::Key(key, false)),
        6 => command.prop_map(|c| Step::Key(KeyCode::Char(c), false)),
        1 => any::<char>().prop_map(|c| Step::Key(KeyCode::Char(c), true)),
        2 => (0..220_u16, 0..70_u16).prop_map(|(w, h)| Step::Size(w, h)),
        3 => (0..3_usize, 0..200_u64).prop_map(|(kind, n)| Step::Frame(kind, n)),
        1 => prop::collection::vec(0..200_u64, 0..9).prop_map(Step::History),
        1 => (0..80_usize).prop_map(Step::Findings),
        1 => ".{0,40}".prop_map(Step::Lost),
        1 => any::<u64>().prop_map(Step::Time),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn nothing_that_comes_or_is_pressed_panics(
        steps in prop::collection::vec(step(), 0..60),
        utf8: bool,
        color: bool,
    ) {
        let kinds = [sample::rich(), sample::empty(), sample::hostile()];
        let all = findings();
        let mut state = State::new(Source::Own, Theme { utf8, color }, 0);
        let (mut size, mut now_ms) = ((80, 24), 0);
        for step in steps {
            state = match step {
                Step::Key(key, shift) => {
                    let with = if shift { KeyModifiers::SHIFT } else { KeyModifiers::NONE };
                    state.key(KeyEvent::new(key, with))
                }
                Step::Size(columns, rows) => {
                    size = (columns, rows);
                    state
                }
                Step::Frame(kind, n) => {
                    state.update(Update::Frame(Box::new(frame(&kinds[kind], n))), now_ms)
                }
                Step::History(times) => {
                    let frames = times.into_iter().map(|n| frame(&kinds[0], n)).collect();
                    state.update(Update::History(frames), now_ms)
                }
                Step::Findings(n) => {
                    state.update(Update::Findings(all.iter().take(n).cloned().collect()), now_ms)
                }
                Step::Lost(why) => state.update(Update::Lost(why), now_ms),
                Step::Time(ms) => {
                    now_ms = ms;
                    state
                }
            };
            let backend = drawn_at(state.clone(), size, now_ms);
            for cell in backend.buffer().content() {
                prop_assert!(!cell.symbol().chars().any(char::is_control), "{:?}", cell.symbol());
            }
        }
    }
}

/// The page about this has a picture of each view, which is what is drawn: `NETTRACE_UPDATE_SCHEMA=1` draws them anew.
#[test]
fn the_pictures_of_the_page_are_what_is_drawn() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/top.md");
    let kept = std::fs::read_to_string(&path).unwrap();
    let mut page = String::new();
    let mut rest = kept.as_str();
    let mut pictures = 0;
    while let Some((before, after)) = rest.split_once("<!-- picture: ") {
        let (name, after) = after.split_once(" -->\n").unwrap();
        // What is there already ends with the fence that ends it.
        rest = match after.strip_prefix("\n```text\n") {
            Some(old) => old.split_once("\n```\n").unwrap().1,
            None => after,
        };
        let (n, _) = (1..).zip(Tab::ALL).find(|(_, tab)| tab.title().eq_ignore_ascii_case(name)).unwrap();
        let picture = drawn(press(state(UTF8), &n.to_string()), (80, 24));
        page += &format!("{before}<!-- picture: {name} -->\n\n```text\n{picture}\n```\n");
        pictures += 1;
    }
    page += rest;
    assert_eq!(pictures, Tab::ALL.len());
    if std::env::var_os("NETTRACE_UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        page == std::fs::read_to_string(&path).unwrap(),
        "docs/top.md is stale: NETTRACE_UPDATE_SCHEMA=1"
    );
}
