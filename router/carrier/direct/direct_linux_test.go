package direct_test

import "time"

// patience is the timeout of all waits.
const patience = 20 * time.Second
