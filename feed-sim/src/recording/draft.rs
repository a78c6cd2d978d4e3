//! A file that bears its name only once it is whole.
//!
//! Written by the writers of recordings. Until then it is `NAME.part`, and gone with whoever writes it: a run
//! that fails leaves nothing behind that somebody could take for a recording.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// See the top of this file.
#[derive(Debug)]
pub struct Draft {
    file: BufWriter<File>,
    /// Where it is on its way.
    part: PathBuf,
    path: PathBuf,
}

impl Draft {
    /// Begins a file.
    ///
    /// # Errors
    /// When there is such a file already, or one on its way, or it cannot be created.
    pub(super) fn create(path: &Path) -> Result<Self> {
        let shown = path.display();
        ensure!(
            !path.try_exists()?,
            "{shown} is there and not written over; choose another folder"
        );
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create_new(&part).with_context(|| {
            format!(
                "{} cannot be created; choose a folder that can be written to, and remove the file if \
                 no other run is writing it",
                part.display()
            )
        })?;
        Ok(Self { file: BufWriter::new(file), part, path: path.to_owned() })
    }

    /// Gives files their names, in this order, once all of them are whole.
    ///
    /// # Errors
    /// When the last of their bytes cannot be written, or a name cannot be given.
    pub(super) fn keep(mut drafts: Vec<Self>) -> Result<()> {
        for draft in &mut drafts {
            draft.flush()?;
        }
        for Self { part, path, .. } in &drafts {
            fs::rename(part, path).with_context(|| format!("naming {}", path.display()))?;
        }
        Ok(())
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // There is none once it has its name.
        let _ = fs::remove_file(&self.part);
    }
}
