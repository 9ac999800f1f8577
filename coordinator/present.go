package coordinator

import (
	"context"
	"time"
)

// readPatience is how long a question waits for the leader's word before it is answered with what this node knows.
const readPatience = 3 * time.Second

// present waits until this replica holds all that was agreed on before the call, wherever that was: what is then read
// is linearizable with every command and every other such read. It reports false if no leader could say so in time:
// an answer without a majority is better than none, but it says what it is.
func (c *Coordinator) present(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, readPatience)
	defer cancel()
	for {
		index, err := c.readIndex(ctx)
		if err == nil {
			return c.reach(ctx, index) == nil
		}
		if !retryable(err) || sleep(ctx, retryPause) != nil {
			return false
		}
	}
}

func (c *Coordinator) readIndex(ctx context.Context) (uint64, error) {
	leader := c.leader()
	switch leader {
	case "":
		return 0, errNoLeader
	case c.id:
		return c.confirm()
	}
	return c.near.readIndex(ctx, leader)
}

// confirm gives the last command that was agreed on. Only the leader can, and it goes through the log like a command:
// Raft's library tells when an entry was handed to the state, but not when the state has taken it in.
func (c *Coordinator) confirm() (uint64, error) {
	if err := c.raft.Barrier(proposeTimeout).Error(); err != nil {
		return 0, err
	}
	_, index := c.fsm.next()
	return index, nil
}
