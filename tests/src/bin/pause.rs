//! Holds a pod's namespaces, as `pause` of Kubernetes does: it waits until it is killed.

fn main() {
    loop {
        std::thread::park();
    }
}
