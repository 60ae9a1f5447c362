package admin

import (
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	"github.com/execgate/execgate/store"
)

// AddPublicKey implements the RPC.
func (a *v2) AddPublicKey(ctx context.Context, req *actionv2.AddPublicKeyRequest) (*actionv2.AddPublicKeyResponse, error) {
	var expires time.Time
	if req.GetExpirationDate() != nil {
		if expires = req.GetExpirationDate().AsTime(); !expires.After(a.core.now()) {
			return nil, invalid("expiration_date: value must be in the future")
		}
	}
	key, err := a.core.addPublicKey(ctx, req.GetTargetId(), req.GetPublicKey(), expires)
	if err != nil {
		return nil, err
	}
	return &actionv2.AddPublicKeyResponse{KeyId: key.ID, CreationDate: timestamppb.New(key.CreatedAt)}, nil
}

// ActivatePublicKey implements the RPC.
func (a *v2) ActivatePublicKey(ctx context.Context, req *actionv2.ActivatePublicKeyRequest) (*actionv2.ActivatePublicKeyResponse, error) {
	key, err := a.core.activatePublicKey(ctx, req.GetTargetId(), req.GetKeyId())
	if err != nil {
		return nil, err
	}
	return &actionv2.ActivatePublicKeyResponse{ChangeDate: timestamppb.New(key.ChangedAt)}, nil
}

// DeactivatePublicKey implements the RPC.
func (a *v2) DeactivatePublicKey(ctx context.Context, req *actionv2.DeactivatePublicKeyRequest) (*actionv2.DeactivatePublicKeyResponse, error) {
	key, err := a.core.deactivatePublicKey(ctx, req.GetTargetId(), req.GetKeyId())
	if err != nil {
		return nil, err
	}
	return &actionv2.DeactivatePublicKeyResponse{ChangeDate: timestamppb.New(key.ChangedAt)}, nil
}

// RemovePublicKey implements the RPC.
func (a *v2) RemovePublicKey(ctx context.Context, req *actionv2.RemovePublicKeyRequest) (*actionv2.RemovePublicKeyResponse, error) {
	removed, err := a.core.removePublicKey(ctx, req.GetTargetId(), req.GetKeyId())
	if err != nil {
		return nil, err
	}
	return &actionv2.RemovePublicKeyResponse{DeletionDate: optionalTime(removed)}, nil
}

// ListPublicKeys implements the RPC.
func (a *v2) ListPublicKeys(ctx context.Context, req *actionv2.ListPublicKeysRequest) (*actionv2.ListPublicKeysResponse, error) {
	filters := make([]func(*store.PublicKey) bool, 0, len(req.GetFilters()))
	for _, f := range req.GetFilters() {
		switch q := f.GetFilter().(type) {
		case *actionv2.PublicKeySearchFilter_KeyIdsFilter:
			set := setOf(q.KeyIdsFilter.GetIds())
			filters = append(filters, func(k *store.PublicKey) bool { return set[k.ID] })
		case *actionv2.PublicKeySearchFilter_ActiveFilter:
			filters = append(filters, func(k *store.PublicKey) bool { return k.Active == q.ActiveFilter })
		case *actionv2.PublicKeySearchFilter_ExpirationDateFilter:
			filters = append(filters, expirationFilter(q.ExpirationDateFilter.GetTimestamp().AsTime(), timeMethod(q.ExpirationDateFilter.GetMethod())))
		}
	}
	all := func(s *store.State) []*store.PublicKey { return keysOf(s.Target(req.GetTargetId())) }
	keep := func(*store.State) []func(*store.PublicKey) bool { return filters }
	byID := func(a, b *store.PublicKey) int { return strings.Compare(a.ID, b.ID) }
	result, err := search(ctx, a.core, all, keep, v2KeyOrder[req.GetSortingColumn()], byID, v2Page(req.GetPagination()))
	if err != nil {
		return nil, err
	}
	res := &actionv2.ListPublicKeysResponse{Pagination: v2Pagination(result), PublicKeys: make([]*actionv2.PublicKey, len(result.page))}
	for i, k := range result.page {
		res.PublicKeys[i] = &actionv2.PublicKey{
			KeyId:          k.ID,
			Active:         k.Active,
			PublicKey:      k.PEM,
			Fingerprint:    fingerprint(k.PEM),
			ExpirationDate: optionalTime(k.ExpiresAt),
			CreationDate:   timestamppb.New(k.CreatedAt),
			ChangeDate:     timestamppb.New(k.ChangedAt),
		}
	}
	return res, nil
}

// keysOf returns the keys of a target by creation, then id; of no target, none.
func keysOf(t *store.Target) []*store.PublicKey {
	if t == nil {
		return nil
	}
	keys := make([]*store.PublicKey, len(t.PublicKeys))
	for i := range t.PublicKeys {
		keys[i] = &t.PublicKeys[i]
	}
	slices.SortStableFunc(keys, func(a, b *store.PublicKey) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return keys
}

// v2KeyOrder has the order of each column; what it lacks is sorted by creation. Keys that never expire come last.
var v2KeyOrder = map[actionv2.PublicKeyFieldName]func(a, b *store.PublicKey) int{
	actionv2.PublicKeyFieldName_PUBLIC_KEY_FIELD_NAME_CHANGE_DATE: func(a, b *store.PublicKey) int {
		return a.ChangedAt.Compare(b.ChangedAt)
	},
	actionv2.PublicKeyFieldName_PUBLIC_KEY_FIELD_NAME_EXPIRATION_DATE: func(a, b *store.PublicKey) int {
		switch {
		case a.ExpiresAt.IsZero() && b.ExpiresAt.IsZero():
			return 0
		case a.ExpiresAt.IsZero():
			return 1
		case b.ExpiresAt.IsZero():
			return -1
		}
		return a.ExpiresAt.Compare(b.ExpiresAt)
	},
}
