//! Who ticks. One replica holds the Lease and the others stand by, so that no work is done twice.
//! It never makes anything safe: two leaders at once are stopped by the compare-and-swap of each
//! status, and a lost lease only costs time.
