//! A containerd of the test's own: its directories, its socket, its network namespace, and images made for it.

use anyhow::{Context as _, Result, ensure};
use nettrace::lab::Netns;
use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Programs that it takes.
const NEEDED: [&str; 4] = ["containerd", "ctr", "runc", "buildah"];
/// Where plugins of the network are, by distribution.
const PLUGINS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// What is not there; none when all is.
pub(crate) fn missing() -> Option<String> {
    let runs =
        |program: &&&str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err();
    if let Some(program) = NEEDED.iter().find(runs) {
        return Some(format!("there is no {program} here (`cargo xtask setup --test`)"));
    }
    plugins().is_none().then(|| format!("no bridge plugin in {}", PLUGINS.join(" or ")))
}

fn plugins() -> Option<&'static str> {
    PLUGINS.into_iter().find(|dir| Path::new(dir).join("bridge").exists())
}

pub(crate) struct Containerd {
    child: Child,
    dir: PathBuf,
    /// The node's network, which is no one else's.
    pub(crate) node: Netns,
    /// Its part of the control groups.
    pub(crate) cgroup: String,
}

impl Containerd {
    /// Starts it, with these images: archives, and the name of that which holds pods' namespaces.
    pub(crate) fn start(dir: &Path, archives: &[PathBuf], pause: &str) -> Result<Self> {
        let node = Netns::create(&format!("nettrace-pods-{}", std::process::id()))?;
        let up = Command::new("ip").args(["-n", node.name(), "link", "set", "lo", "up"]).status()?;
        ensure!(up.success(), "the node has no loopback");
        for name in ["root", "state", "cni", "logs"] {
            fs::create_dir_all(dir.join(name))?;
        }
        fs::write(dir.join("cni/10-test.conflist"), NETWORK)?;
        fs::write(dir.join("config.toml"), config(dir, pause)?)?;
        let log = fs::File::create(dir.join("containerd.log"))?;
        let mut cmd = Command::new("containerd");
        cmd.arg("--config")
            .arg(dir.join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // Ctrl-C is for the test, which ends it. It and everything that it starts are in the node's network.
        let child = node.run(|| cmd.process_group(0).spawn())??;
        let mut containerd = Self {
            child,
            dir: dir.to_owned(),
            node,
            cgroup: format!("nettrace-pods-{}", std::process::id()),
        };
        let socket = containerd.socket();
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = containerd.child.try_wait()?;
            ensure!(ended.is_none() && begun.elapsed() < Duration::from_secs(60), "{}", containerd.log());
            sleep(Duration::from_millis(100));
        }
        for archive in archives {
            let mut import = Command::new("ctr");
            import.arg("--address").arg(&socket).args([
                "--namespace",
                "k8s.io",
                "images",
                "import",
                "--snapshotter",
                "native",
            ]);
            let done = import.arg(archive).output()?;
            ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        }
        Ok(containerd)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("containerd.sock")
    }

    /// Where it writes what containers say.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The end of what it says.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // SAFETY: a call without pointers; the child has not been waited for, so the number is its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let begun = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none())
            && begun.elapsed() < Duration::from_secs(10)
        {
            sleep(Duration::from_millis(50));
        }
        // What did not end by itself; the rest is waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        remove_groups(&self.cgroup);
    }
}

/// Removes empty control groups, of one hierarchy or of each of several.
fn remove_groups(name: &str) {
    let base = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    for dir in hierarchies.chain([base.to_owned()]).map(|dir| dir.join(name)).filter(|dir| dir.is_dir()) {
        remove_group(&dir);
    }
}

fn remove_group(dir: &Path) {
    let inner = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    inner.filter(|path| path.is_dir()).for_each(|path| remove_group(&path));
    if let Err(error) = fs::remove_dir(dir) {
        println!("{} is still there: {error}", dir.display());
    }
}

/// A bridge, and addresses by the plugin that keeps them in files, which are in /run and go with the pods.
const NETWORK: &str = r#"{
  "cniVersion": "0.4.0",
  "name": "nettrace-test",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
      "ipam": {
        "type": "host-local", "dataDir": "/run/nettrace-test-cni",
        "ranges": [[{"subnet": "10.245.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]
      }
    }
  ]
}"#;

fn config(dir: &Path, pause: &str) -> Result<String> {
    let plugins = plugins().context("no plugins")?;
    let at = |name: &str| dir.join(name).display().to_string();
    Ok(format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
# Without CAP_SYS_RESOURCE scores cannot be lowered.
restrict_oom_score_adj = true
disable_hugetlb_controller = true
tolerate_missing_hugetlb_controller = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{cni}"
"#,
        root = at("root"),
        state = at("state"),
        socket = at("containerd.sock"),
        cni = at("cni"),
    ))
}

/// The image of nettrace, as `cargo xtask image` builds it, and one that holds namespaces, from static programs; the second is
/// built in the same store.
pub(crate) fn images(dir: &Path) -> Result<[PathBuf; 2]> {
    let programs = static_programs()?;
    let store = dir.join("storage.conf");
    let text = format!(
        "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/images\"\nrunroot = \"{0}/images-run\"\n",
        dir.display()
    );
    fs::write(&store, text)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arch = env::consts::ARCH;
    let mut image = Command::new(cargo);
    image.args([
        "run",
        "--quiet",
        "--package",
        "xtask",
        "--",
        "image",
        "--tag",
        "test",
        "--arch",
        arch,
        "--binary",
    ]);
    image.arg(programs.join("nettrace")).arg("--output").arg(dir).env("CONTAINERS_STORAGE_CONF", &store);
    let done = image.output().context("cargo xtask image")?;
    ensure!(done.status.success(), "cargo xtask image: {}", String::from_utf8_lossy(&done.stderr));
    let debian = if arch == "aarch64" { "arm64" } else { "amd64" };

    let context = dir.join("pause");
    fs::create_dir_all(&context)?;
    fs::copy(programs.join("pause"), context.join("pause"))?;
    fs::write(context.join("Containerfile"), "FROM scratch\nCOPY pause /pause\nENTRYPOINT [\"/pause\"]\n")?;
    let archive = dir.join("pause.tar");
    let name = format!("docker-archive:{}:{PAUSE}", archive.display());
    let commands: [&[&str]; 2] =
        [&["bud", "--quiet", "--isolation", "chroot", "--tag", PAUSE], &["push", "--quiet", PAUSE, &name]];
    for (words, directory) in commands.into_iter().zip([Some(&context), None]) {
        let mut buildah = Command::new("buildah");
        buildah.args(["--storage-driver", "vfs"]).args(words).args(directory);
        let done = buildah.env("CONTAINERS_STORAGE_CONF", &store).output()?;
        ensure!(done.status.success(), "buildah {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok([dir.join(format!("nettrace-{debian}.tar")), archive])
}

/// Name of the image that holds namespaces.
pub(crate) const PAUSE: &str = "localhost/pause:test";

/// The directory with static programs: `NETTRACE_STATIC_DIR`, or that of the virtual machines' programs, built now.
fn static_programs() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("NETTRACE_STATIC_DIR") {
        return Ok(dir.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let dir = root.join("target/vm/build");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .current_dir(&root)
        .args([
            "build",
            "--quiet",
            "--profile",
            "vm",
            "-p=nettrace",
            "-p=nettrace-tests",
            "--bin=nettrace",
            "--bin=pause",
        ])
        .args(["--target", &target, "--target-dir"])
        .arg(&dir)
        .env("CARGO_ENCODED_RUSTFLAGS", "-C\x1ftarget-feature=+crt-static")
        .env_remove("RUSTFLAGS")
        .status()?;
    ensure!(built.success(), "static programs cannot be built");
    Ok(dir.join(target).join("vm"))
}
