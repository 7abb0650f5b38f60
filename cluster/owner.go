package cluster

import "context"

// owner drives the possession of slots on a member.
type owner struct{}

func attach[S, O, R any, M Machine[S, O, R]](t *Table[S, O, R, M], node *Node, m M, cfg TableConfig) error {
	return ErrClosed
}

func (o *owner) detach(string) {}

func (o *owner) keys(ctx context.Context, table, prefix string, limit int) ([]string, error) {
	return nil, ErrClosed
}

func (o *owner) count(ctx context.Context, table string) (int, error) { return 0, ErrClosed }
