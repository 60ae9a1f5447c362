package oidcauth

import (
	"slices"
	"strings"
)

// permissions is what the roles and the permissions of a token add up to, each once.
func (a *Authenticator) permissions(claims map[string]any) []string {
	var granted []string
	if a.options.PermissionsClaim != "" {
		granted = names(lookup(claims, a.options.PermissionsClaim))
	}
	if a.options.RolesClaim != "" {
		value := lookup(claims, a.options.RolesClaim)
		if role, ok := value.(string); ok { // it may be one, with spaces in it
			granted = append(granted, a.options.Roles[role]...)
		}
		for _, role := range names(value) {
			granted = append(granted, a.options.Roles[role]...)
		}
	}
	slices.Sort(granted)
	return slices.Compact(granted)
}

// lookup returns the value at a path. A name may have dots itself (https://example.com/roles): the longest name that
// is there counts.
func lookup(object map[string]any, path string) any {
	for name := path; ; {
		if value, ok := object[name]; ok {
			if name == path {
				return value
			}
			if inner, ok := value.(map[string]any); ok {
				if found := lookup(inner, path[len(name)+1:]); found != nil {
					return found
				}
			}
		}
		dot := strings.LastIndexByte(name, '.')
		if dot < 0 {
			return nil
		}
		name = name[:dot]
	}
}

// names lists what a claim names: the words of a string (like scope), the strings of a list, or the keys of an object
// (ZITADEL says for each role which organisations granted it) unless their value is null or false.
func names(value any) []string {
	switch v := value.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		var list []string
		for _, element := range v {
			if name, ok := element.(string); ok {
				list = append(list, name)
			}
		}
		return list
	case map[string]any:
		var list []string
		for name, grant := range v {
			if grant != nil && grant != false {
				list = append(list, name)
			}
		}
		return list
	}
	return nil
}
