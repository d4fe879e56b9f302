//! What a terminal can show: which characters, and which colours.
//!
//! Needs the environment; yields a [`Theme`], and text cut to a width. Colours are only of the sixteen that a terminal's
//! own palette names, and of these those that can be read on dark and on light; nothing is told by colour alone.

use crate::report::view::Level;
use ratatui::style::{Color, Modifier, Style};
use std::{borrow::Cow, env, ffi::OsString};
use unicode_width::UnicodeWidthStr as _;

/// What a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Whether characters beyond ASCII are shown as what they are.
    pub utf8: bool,
    /// Whether there are colours.
    pub color: bool,
}

/// Eighths of a cell, lowest first, and what stands for them in ASCII.
const LEVELS: [[char; 8]; 2] =
    [['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'], ['_', '.', ',', '-', '~', '=', '+', '#']];

impl Theme {
    /// What the environment says: `LC_ALL`, `LC_CTYPE` and `LANG`, the first that is set, and `NO_COLOR`.
    #[must_use]
    pub fn of_environment(ascii: bool) -> Self {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
        Self { utf8: !ascii && locale.is_some_and(|l| is_utf8(&l)), color: variable("NO_COLOR").is_none() }
    }

    /// One of eight heights, 0 to 7.
    pub(super) const fn level(self, height: usize) -> char {
        let height = if height > 7 { 7 } else { height };
        LEVELS[if self.utf8 { 0 } else { 1 }][height]
    }

    /// Bars: from the median to the 90th percentile, to the 99th, to the maximum.
    pub(super) const fn bars(self) -> [char; 3] {
        if self.utf8 { ['█', '▓', '░'] } else { ['#', '=', '-'] }
    }

    /// Marks of a column that rows are sorted by: largest first, smallest first.
    pub(super) const fn arrows(self) -> [char; 2] {
        if self.utf8 { ['▼', '▲'] } else { ['v', '^'] }
    }

    /// What stands for the end of a text that was cut.
    const fn ellipsis(self) -> char {
        if self.utf8 { '…' } else { '~' }
    }

    /// One character for how much something asks for attention.
    pub(super) const fn mark(self, level: Level) -> &'static str {
        match level {
            _ if self.utf8 => level.mark(),
            Level::Good => "+",
            Level::Note => "-",
            Level::Warn => "!",
            Level::Bad => "x",
        }
    }

    /// How something that asks for attention looks.
    pub(super) fn level_style(self, level: Level) -> Style {
        match level {
            Level::Good | Level::Note => Style::new(),
            Level::Warn => self.colored(Color::Magenta),
            Level::Bad => self.colored(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// How bars and graphs look.
    pub(super) fn graph_style(self) -> Style {
        self.colored(Color::Green)
    }

    fn colored(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    /// Text in at most `width` columns; what is cut ends with an ellipsis. In ASCII other characters become `?`.
    pub(super) fn fit(self, text: &str, width: usize) -> Cow<'_, str> {
        let text = self.plain(text);
        if text.width() <= width {
            return text;
        }
        let mut fits = String::new();
        for c in text.chars() {
            fits.push(c);
            // Of the whole: some characters make the one before them wider.
            if fits.width() >= width {
                fits.pop();
                break;
            }
        }
        if width > 0 {
            fits.push(self.ellipsis());
        }
        Cow::Owned(fits)
    }

    fn plain(self, text: &str) -> Cow<'_, str> {
        if self.utf8 || text.is_ascii() {
            return Cow::Borrowed(text);
        }
        let ours = |c: char| match c {
            c if c.is_ascii() => c,
            '…' => '~',
            _ => '?',
        };
        Cow::Owned(text.chars().map(ours).collect())
    }
}

/// Whether a locale's name says UTF-8: `de_DE.UTF-8`, `C.utf8`.
fn is_utf8(locale: &OsString) -> bool {
    let name = locale.to_string_lossy().to_ascii_lowercase();
    name.contains("utf-8") || name.contains("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UTF8: Theme = Theme { utf8: true, color: true };
    const ASCII: Theme = Theme { utf8: false, color: false };

    #[test]
    fn what_does_not_fit_is_cut() {
        assert_eq!(UTF8.fit("rx.total", 8), "rx.total");
        assert_eq!(UTF8.fit("rx.total", 7), "rx.tot…");
        assert_eq!(UTF8.fit("世界世界", 5), "世界…");
        assert_eq!(ASCII.fit("rx.total", 4), "rx.~");
        assert_eq!(ASCII.fit("né…", 9), "n?~");
        assert_eq!(UTF8.fit("rx", 0), "");
    }

    #[test]
    fn locales_say_what_they_encode() {
        for (locale, utf8) in [("C.UTF-8", true), ("de_DE.utf8", true), ("C", false), ("POSIX", false)] {
            assert_eq!(is_utf8(&locale.into()), utf8, "{locale}");
        }
    }

    #[test]
    fn without_colour_there_is_none() {
        for level in [Level::Good, Level::Note, Level::Warn, Level::Bad] {
            assert_eq!(ASCII.level_style(level).fg, None);
        }
        assert_eq!(ASCII.graph_style().fg, None);
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_place(text in ".{0,60}", width in 0..40_usize, utf8: bool) {
            let theme = Theme { utf8, color: true };
            prop_assert!(theme.fit(&text, width).width() <= width);
            prop_assert!(utf8 || theme.fit(&text, width).is_ascii());
        }
    }
}
