//! The kernels of the matrix: found in the cache, or fetched into it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use walkdir::WalkDir;

use super::{apt::PrivateApt, unpack};
use crate::workspace;

/// One column of the matrix: the newest kernel that Debian has of a series, built for virtual machines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Series {
    /// Its name here, as in `--kernel` and in the data of the tests.
    pub(crate) name: &'static str,
    /// The suite that has it.
    pub(super) suite: &'static str,
    /// Whether the suite belongs to the archive of security updates.
    pub(super) is_security: bool,
    /// How the releases of the series begin.
    prefix: &'static str,
}

/// All columns, oldest first.
pub(crate) const SERIES: [Series; 4] = [
    Series { name: "5.10", suite: "bullseye-security", is_security: true, prefix: "5.10." },
    Series { name: "6.1", suite: "bookworm-security", is_security: true, prefix: "6.1." },
    Series { name: "6.12", suite: "trixie", is_security: false, prefix: "6.12." },
    Series { name: "7.x", suite: "trixie-backports", is_security: false, prefix: "7." },
];

const SUFFIX: &str = "-cloud-amd64";

/// A kernel in the cache.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Which it is.
    pub(crate) series: &'static Series,
    /// What it calls itself.
    pub(crate) release: String,
    /// The uncompressed image.
    pub(crate) image: PathBuf,
    /// The directory with its modules.
    pub(crate) modules: PathBuf,
}

/// The kernels asked for, from the cache where they are there, and from Debian otherwise or to `refresh` them.
pub(crate) fn get(wanted: &[&'static Series], refresh: bool, mirror: Option<&str>) -> Result<Vec<Kernel>> {
    let cache = cache_dir()?;
    let mut apt = None;
    let mut kernels = Vec::new();
    for series in wanted {
        let dir = cache.join(series.name);
        let cached = Kernel::open(series, &dir);
        if let (Ok(kernel), false) = (cached, refresh) {
            kernels.push(kernel);
            continue;
        }
        if apt.is_none() {
            apt = Some(PrivateApt::update(&cache.join("apt"), mirror)?);
        }
        if let Some(apt) = &apt {
            fetch(apt, series, &dir)
                .with_context(|| format!("fetching the kernel of series {}", series.name))?;
        }
        kernels.push(Kernel::open(series, &dir)?);
    }
    Ok(kernels)
}

impl Kernel {
    fn open(series: &'static Series, dir: &Path) -> Result<Self> {
        let image = dir.join("vmlinux");
        let release = fs::read_to_string(dir.join("release")).with_context(|| dir.display().to_string())?;
        let modules = dir.join("modules");
        if !image.is_file() || !modules.is_dir() {
            bail!("{} is not complete", dir.display());
        }
        Ok(Self { series, release, image, modules })
    }
}

/// Downloads and unpacks the newest kernel of a series, unless it is there already.
fn fetch(apt: &PrivateApt, series: &'static Series, dir: &Path) -> Result<()> {
    let names = apt.package_names("linux-image-")?;
    let Some(release) = newest(names.lines(), series.prefix) else {
        bail!("{} has no package linux-image-{}*{SUFFIX}", series.suite, series.prefix);
    };
    if Kernel::open(series, dir).is_ok_and(|kernel| kernel.release == release) {
        println!("vm: {release} is the newest of {}", series.name);
        return Ok(());
    }
    // From 7.0 on the image package is empty and depends on these.
    let split = format!("linux-binary-{release}");
    let packages = if apt.has(&split) {
        vec![split, format!("linux-modules-{release}")]
    } else {
        vec![format!("linux-image-{release}")]
    };
    println!("vm: fetching {}", packages.join(" "));
    let fresh = dir.with_file_name(format!("{}-new", series.name));
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    let tree = fresh.join("tree");
    fs::create_dir_all(&tree).with_context(|| tree.display().to_string())?;
    apt.unpack(&packages, &fresh.join("deb"), &tree)?;
    // `vmlinuz` among the modules or `vmlinuz-RELEASE` in /boot.
    let compressed = find(&tree, |name| name.starts_with("vmlinuz"), Path::is_file)?;
    let image = unpack::kernel(&fs::read(&compressed)?).with_context(|| compressed.display().to_string())?;
    fs::write(fresh.join("vmlinux"), image)?;
    let modules = find(&tree, |name| name == release, |path| path.join("kernel").is_dir())?;
    fs::rename(modules, fresh.join("modules"))?;
    fs::remove_dir_all(&tree)?;
    // Written last: a directory with it is complete.
    fs::write(fresh.join("release"), &release)?;
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::rename(&fresh, dir).with_context(|| dir.display().to_string())
}

/// The one entry of a tree with such a name and such a nature.
fn find(tree: &Path, name: impl Fn(&str) -> bool, nature: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    WalkDir::new(tree)
        .into_iter()
        .flatten()
        .find(|entry| name(&entry.file_name().to_string_lossy()) && nature(entry.path()))
        .map(walkdir::DirEntry::into_path)
        .with_context(|| format!("the packages have no kernel or no modules, in {}", tree.display()))
}

/// The newest release among packages of kernel images.
fn newest<'a>(packages: impl Iterator<Item = &'a str>, prefix: &str) -> Option<String> {
    packages
        .filter_map(|name| name.trim().strip_prefix("linux-image-"))
        .filter(|release| release.starts_with(prefix) && release.ends_with(SUFFIX))
        .max_by_key(|release| numbers(release))
        .map(str::to_owned)
}

/// The numbers in a release, which order releases of the same form.
fn numbers(release: &str) -> Vec<u64> {
    // The suffix has a number, too.
    let release = release.trim_end_matches(SUFFIX);
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// Where kernels are kept, for all working copies of this user.
pub(super) fn cache_dir() -> Result<PathBuf> {
    let cache = workspace::cache_home().context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(cache.join("nettrace/kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_taken() {
        let packages = "linux-image-6.12.9+deb13-cloud-amd64\nlinux-image-6.12.48+deb13-cloud-amd64\n\
                        linux-image-6.12.48+deb13.1-cloud-amd64\nlinux-image-6.12.90+deb13-amd64\n\
                        linux-image-6.1.0-40-cloud-amd64\nlinux-image-cloud-amd64\n";
        let of = |prefix| newest(packages.lines(), prefix);
        assert_eq!(of("6.12.").as_deref(), Some("6.12.48+deb13.1-cloud-amd64"));
        assert_eq!(of("6.1.").as_deref(), Some("6.1.0-40-cloud-amd64"));
        assert_eq!(of("7."), None);
    }

    #[test]
    fn the_series_have_names_of_their_own() {
        for (i, series) in SERIES.iter().enumerate() {
            assert!(
                SERIES[i + 1..].iter().all(|other| other.name != series.name && other.suite != series.suite)
            );
        }
    }
}
