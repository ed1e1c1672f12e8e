//! When a collection of what may be over is looked through: once it is twice as long as what was left of it then. So an
//! addition costs a constant, however many others there are, and no more than half of the collection is over.

/// Collections of this length are not looked through.
const FEW: usize = 64;

/// The length at which a collection is due.
#[derive(Debug)]
pub struct Doubling {
    due: usize,
    #[cfg(test)]
    pub looks: usize,
}

impl Default for Doubling {
    fn default() -> Self {
        Self {
            due: FEW,
            #[cfg(test)]
            looks: 0,
        }
    }
}

impl Doubling {
    /// Whether it is to be looked through before another is added.
    pub fn is_due(&self, length: usize) -> bool {
        length >= self.due
    }

    /// It was, and so many are left.
    pub fn looked(&mut self, left: usize) {
        self.due = (2 * left).max(FEW);
        #[cfg(test)]
        {
            self.looks += 1;
        }
    }
}
