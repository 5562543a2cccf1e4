//! Switches the library's locks and threads to shuttle's.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cfg=spill_shuttle");
}
