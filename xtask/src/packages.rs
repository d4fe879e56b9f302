//! The distribution packages that the repository's tasks need.

/// What a group of packages is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Building the kernel object.
    Build,
    /// Running the tests.
    Test,
    /// Running them in virtual machines.
    Vm,
    /// Making and checking packages for distributions.
    Dist,
}

/// One need, by the name of the Debian package that meets it.
#[derive(Debug)]
pub(crate) struct Package {
    /// Package name in Debian and Ubuntu.
    pub(crate) name: &'static str,
    /// Programs any of which meet the need as well, wherever they came from.
    pub(crate) programs: &'static [&'static str],
    /// What it is for.
    pub(crate) parts: &'static [Part],
    /// Whether what needs it does without, and says so: not every distribution has it.
    pub(crate) is_optional: bool,
}

/// Packages of the BPF compiler, for those who have no toolchain with library sources.
pub(crate) const COMPILER: [&str; 3] = ["rustc-web", "rust-web-src", "rust-web-clippy"];

const fn build(name: &'static str, programs: &'static [&'static str]) -> Package {
    Package { name, programs, parts: &[Part::Build], is_optional: false }
}

const fn test(name: &'static str, programs: &'static [&'static str]) -> Package {
    Package { name, programs, parts: &[Part::Test], is_optional: false }
}

const fn test_if_there(name: &'static str, programs: &'static [&'static str]) -> Package {
    Package { is_optional: true, ..test(name, programs) }
}

const fn vm(name: &'static str, programs: &'static [&'static str]) -> Package {
    Package { name, programs, parts: &[Part::Vm], is_optional: false }
}

const fn test_and_vm(name: &'static str, programs: &'static [&'static str]) -> Package {
    Package { name, programs, parts: &[Part::Test, Part::Vm], is_optional: false }
}

const fn dist(name: &'static str, programs: &'static [&'static str]) -> Package {
    Package { name, programs, parts: &[Part::Dist], is_optional: false }
}

/// Everything but the BPF compiler and LLVM, whose version depends on the compiler.
pub(crate) static PACKAGES: &[Package] = &[
    build("g++", &["c++", "g++", "clang++"]),
    build("libzstd-dev", &[]),
    build("zlib1g-dev", &[]),
    build("libxml2-dev", &[]),
    test_and_vm("iproute2", &["ip"]),
    test_and_vm("nftables", &["nft"]),
    test("tshark", &["tshark"]),
    test("chromium", &["chromium", "chromium-browser", "google-chrome"]),
    test_and_vm("conntrack", &["conntrack"]),
    test_and_vm("ethtool", &["ethtool"]),
    test_and_vm("bpftool", &["bpftool"]),
    test("sockperf", &["sockperf"]),
    test("iperf3", &["iperf3"]),
    // Debian has it since trixie; before, it was not free software.
    test_if_there("netperf", &["netperf"]),
    test("bind9-dnsutils", &["dig"]),
    test("unbound", &["unbound"]),
    // The program alone: the package `dnsmasq` would also start it as the machine's name server.
    test("dnsmasq-base", &["dnsmasq"]),
    // Its server and its promtool.
    test("prometheus", &["prometheus", "promtool"]),
    // Pods without a cluster.
    test_if_there("containerd", &["containerd"]),
    test_if_there("runc", &["runc"]),
    test_if_there("containernetworking-plugins", &[]),
    test_if_there("buildah", &["buildah"]),
    dist("rpm", &["rpm"]),
    dist("dpkg-dev", &["dpkg-deb"]),
    vm("qemu-system-x86", &["qemu-system-x86_64"]),
    // What the kernels' signatures are checked with.
    vm("debian-archive-keyring", &[]),
    // The rest of these is what the guests have besides the programs above.
    vm("busybox", &["busybox"]),
    vm("dash", &["dash"]),
    vm("iptables", &["iptables-legacy"]),
    vm("iputils-ping", &["ping"]),
];

/// Services that come with a package above and that tests start by themselves, with their own configuration.
pub(crate) static SERVICES: &[&str] = &["unbound", "netperf", "prometheus", "containerd"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_package_is_listed_twice() {
        for (i, package) in PACKAGES.iter().enumerate() {
            assert!(PACKAGES[i + 1..].iter().all(|other| other.name != package.name), "{}", package.name);
        }
    }

    #[test]
    fn services_belong_to_packages() {
        for service in SERVICES {
            assert!(PACKAGES.iter().any(|package| package.name == *service), "{service}");
        }
    }
}
