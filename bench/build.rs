//! Compiles uWebSockets, if it was asked for: the sources that crate `libuwebsockets-sys` carries,
//! and the few functions around them that `src/peer/uws.rs` calls.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src/peer/uws.cpp");
    #[cfg(feature = "uws")]
    uws::compile()?;
    Ok(())
}

#[cfg(feature = "uws")]
mod uws {
    use std::env;
    use std::error::Error;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// Without TLS and compression, which no peer is measured with, and for this machine.
    pub(crate) fn compile() -> Result<(), Box<dyn Error>> {
        let root = sources()?.join("uWebSockets");
        let sockets = root.join("uSockets/src");
        let files =
            ["bsd.c", "context.c", "loop.c", "socket.c", "udp.c", "eventing/epoll_kqueue.c"];
        let objects = build(&sockets)
            .std("c11")
            .files(files.map(|file| sockets.join(file)))
            .try_compile_intermediates()?;
        build(&sockets)
            .cpp(true)
            .std("c++17")
            .include(root.join("src"))
            .file("src/peer/uws.cpp")
            .objects(objects)
            .try_compile("rival_uws")?;
        Ok(())
    }

    fn build(sockets: &Path) -> cc::Build {
        let mut build = cc::Build::new();
        build
            .include(sockets)
            .define("LIBUS_NO_SSL", None)
            .define("UWS_NO_ZLIB", None)
            .opt_level(3)
            .flag("-march=native")
            .debug(false)
            .force_frame_pointer(false)
            .warnings(false);
        build
    }

    /// Where Cargo keeps the sources of the crate. A crate that is not built has no other way to
    /// tell.
    fn sources() -> Result<PathBuf, Box<dyn Error>> {
        let output = Command::new(env::var("CARGO")?)
            .args(["metadata", "--format-version", "1", "--features", "uws"])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let metadata = String::from_utf8(output.stdout)?;
        let package = metadata.split("#libuwebsockets-sys@").nth(1);
        let path = package.and_then(|package| package.split(r#""manifest_path":""#).nth(1));
        let manifest = path.and_then(|path| path.split('"').next());
        let manifest = PathBuf::from(manifest.ok_or("cargo knows no libuwebsockets-sys")?);
        Ok(manifest.parent().ok_or("a manifest without a folder")?.to_owned())
    }
}
