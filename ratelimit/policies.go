package ratelimit

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/peerlimit/peerlimit/cluster"
)

// PutPolicy stores a policy under its name, in force on every member that the
// receipt counts when it returns, and on others within seconds of their being
// reachable. What was used is kept.
func (l *Limiter) PutPolicy(ctx context.Context, s StoredPolicy) (cluster.Receipt, error) {
	if l.fake != realLimiter {
		return cluster.Receipt{}, nil
	}
	o, err := putOp(s)
	if err != nil {
		return cluster.Receipt{}, err
	}
	c := l.policies
	if known := c.known.Load(); known != nil && len(known.policies) >= MaxPolicies && known.policies[s.Policy.Name] == nil {
		return cluster.Receipt{}, badField("policy", "must not be one of more than %d", MaxPolicies)
	}
	r, err := c.change(ctx, s.Policy.Name, o)
	return r.receipt, err
}

func putOp(s StoredPolicy) (recordOp, error) {
	if err := s.Validate(); err != nil {
		return recordOp{}, err
	}
	s = s.clone()
	slices.SortFunc(s.Overrides, func(a, b Override) int { return cmp.Compare(a.Key, b.Key) })
	body := encodePolicy(s)
	if len(body) > maxRecord {
		return recordOp{}, badField("overrides", "must have at most %d bytes in all, have %d", maxRecord, len(body))
	}
	return recordOp{kind: recordPut, body: body}, nil
}

// DeletePolicy removes what is stored under name; callers' own policies count
// again. [ErrNoPolicy] where there is none.
func (l *Limiter) DeletePolicy(ctx context.Context, name string) (cluster.Receipt, error) {
	if l.fake != realLimiter {
		return cluster.Receipt{}, nil
	}
	if !validName(name) {
		return cluster.Receipt{}, Policy{Name: name}.Validate()
	}
	r, err := l.policies.change(ctx, name, recordOp{kind: recordDelete})
	if err == nil && !r.done {
		err = ErrNoPolicy
	}
	return r.receipt, err
}

// SetOverride changes what one key may use of a policy. Where nothing is stored
// under the policy's name yet, callers' numbers stay for the other keys.
func (l *Limiter) SetOverride(ctx context.Context, policy string, o Override) (cluster.Receipt, error) {
	return l.edit(ctx, policy, func(s *StoredPolicy) error {
		for i := range s.Overrides {
			if s.Overrides[i].Key == o.Key {
				s.Overrides[i] = o
				return nil
			}
		}
		s.Overrides = append(s.Overrides, o)
		return nil
	})
}

// DeleteOverride takes a key's override away. [ErrNoPolicy] where there is
// none.
func (l *Limiter) DeleteOverride(ctx context.Context, policy, key string) (cluster.Receipt, error) {
	return l.edit(ctx, policy, func(s *StoredPolicy) error {
		before := len(s.Overrides)
		s.Overrides = slices.DeleteFunc(s.Overrides, func(o Override) bool { return o.Key == key })
		if len(s.Overrides) == before {
			return ErrNoPolicy
		}
		return nil
	})
}

// editTries is how often a change starts anew because another came between.
const editTries = 20

func (l *Limiter) edit(ctx context.Context, name string, change func(*StoredPolicy) error) (cluster.Receipt, error) {
	if l.fake != realLimiter {
		return cluster.Receipt{}, nil
	}
	if !validName(name) {
		return cluster.Receipt{}, Policy{Name: name}.Validate()
	}
	for range editTries {
		got, err := l.policies.table.Do(ctx, []byte(name), recordOp{kind: recordGet})
		if err != nil {
			return cluster.Receipt{}, fmt.Errorf("ratelimit: read policy %s: %w", name, err)
		}
		s := StoredPolicy{Policy: Policy{Name: name}}
		if got.record.version != 0 && !got.record.deleted {
			if s, err = decodePolicy(got.record.body); err != nil {
				return cluster.Receipt{}, err
			}
		}
		if err := change(&s); err != nil {
			return cluster.Receipt{}, err
		}
		o, err := putOp(s)
		if err != nil {
			return cluster.Receipt{}, err
		}
		o.expected, o.version = true, got.record.version
		r, err := l.policies.change(ctx, name, o)
		if err != nil || r.done {
			return r.receipt, err
		}
	}
	return cluster.Receipt{}, fmt.Errorf("ratelimit: policy %s is being changed too often: %w", name, cluster.ErrBusy)
}

// LoadPolicies stores the policies of a file, those excepted that were changed
// at run time since, and returns when this member knows all that is stored.
// Members that start with the same file change nothing; with different ones the
// last to start wins.
func (l *Limiter) LoadPolicies(ctx context.Context, policies []StoredPolicy) error {
	if l.fake != realLimiter {
		return nil
	}
	ops := make([]recordOp, len(policies))
	for i, s := range policies {
		o, err := putOp(s)
		if err != nil {
			return err
		}
		o.fromFile = true
		ops[i] = o
	}
	for i, o := range ops {
		name := policies[i].Policy.Name
		r, err := l.policies.change(ctx, name, o)
		if err != nil {
			return err
		}
		if !r.done {
			l.policies.logger.Info("policy of the file is not used: it was changed at run time", "policy", name)
		}
	}
	return l.policies.reload(ctx)
}
