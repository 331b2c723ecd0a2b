//! An upload of a test's store that keeps its bytes in memory and writes them at once, as a bucket
//! does.

use vsm::id::Id;
use vsm::store::{File, FileType, Result, Store, Upload};

pub struct Kept<S> {
    store: S,
    ty: FileType,
    bytes: Vec<u8>,
}

impl<S: Store + 'static> Kept<S> {
    pub fn upload(store: S, ty: FileType) -> Box<dyn Upload> {
        Box::new(Kept { store, ty, bytes: Vec::new() })
    }
}

impl<S: Store> Upload for Kept<S> {
    fn write(&mut self, part: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    fn commit(self: Box<Self>, id: Id) -> Result<()> {
        self.store.write(File::new(self.ty, id), self.bytes.into())
    }
}
