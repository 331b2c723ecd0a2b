//! The kinds of requests: the flows of a backup and of a restore, each of which observes the
//! cluster and decides on one action.

pub mod backup;
pub mod observe;
pub mod restore;
mod teardown;

use crate::controller::action::Action;
use crate::controller::cluster::{Cluster, Result};
use crate::controller::config::Config;
use crate::controller::dialect::Dialect;
use crate::controller::domain::direction::Direction;
use crate::controller::domain::names::Owner;
use crate::controller::observed::{Admission, Common};

/// The flow of one direction, the same for every dialect.
pub trait Flow: Direction {
    type Observed: Send + Sync;

    /// Reads everything that the next decision needs.
    fn observe<R: Dialect<Direction = Self>>(
        observer: observe::Observer<'_, R>,
        common: Common,
    ) -> impl Future<Output = Result<Self::Observed>> + Send;

    fn common(observed: &Self::Observed) -> &Common;

    /// The next action. All state is in the cluster: a restarted controller continues from it.
    fn decide(owner: &Owner, observed: &Self::Observed, config: &Config) -> Action<Self>;
}

/// Observes a request.
pub async fn observe<R>(
    cluster: &Cluster,
    request: &R,
    admission: Admission,
    config: &Config,
) -> Result<<R::Direction as Flow>::Observed>
where
    R: Dialect,
    R::Direction: Flow,
{
    let observer = observe::Observer { cluster, request, config };
    let common = observer.common(admission).await?;
    R::Direction::observe(observer, common).await
}
