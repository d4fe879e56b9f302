//! `netfilter`: the hooks, which take the place of interface scopes in nf.hook.

/// Hooks by their number in `enum nf_inet_hooks`, as rule sets name them.
pub const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];

/// The first scope that stands for a hook: 0 and 1 mean what they mean for interfaces.
const FIRST_SCOPE: u16 = 2;

/// Scopes with all hooks in them.
pub const SCOPES: u32 = FIRST_SCOPE as u32 + HOOKS.len() as u32;

/// The scope of a hook's latencies; an unknown hook has the one for what belongs to nothing.
#[inline(always)]
#[must_use]
pub const fn scope_of(hook: u8) -> u16 {
    if (hook as usize) < HOOKS.len() { FIRST_SCOPE + hook as u16 } else { crate::SCOPE_OTHER }
}

/// The hook of a scope.
#[must_use]
pub fn hook_of(scope: u16) -> Option<&'static str> {
    HOOKS.get(usize::from(scope.checked_sub(FIRST_SCOPE)?)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_has_a_scope_of_its_own() {
        for (number, name) in HOOKS.into_iter().enumerate() {
            assert_eq!(hook_of(scope_of(number as u8)), Some(name));
            assert!(u32::from(scope_of(number as u8)) < crate::MIN_SCOPES);
        }
        assert_eq!(hook_of(scope_of(9)), None);
    }
}
