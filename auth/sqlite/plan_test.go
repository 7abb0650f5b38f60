package sqlite

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
)

// Every query on the tables that grow uses an index.
func TestPlans(t *testing.T) {
	s, err := Open(context.Background(), filepath.Join(t.TempDir(), "keys.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for query, want := range map[string]string{
		selectKey + "WHERE digest = x'00'":                                             "SEARCH auth_keys USING INDEX sqlite_autoindex_auth_keys_2 (digest=?)",
		selectKey + "WHERE id = 'a'":                                                   "SEARCH auth_keys USING INDEX sqlite_autoindex_auth_keys_1 (id=?)",
		selectKey + "WHERE id > 'a' ORDER BY id LIMIT 9":                               "SEARCH auth_keys USING INDEX sqlite_autoindex_auth_keys_1 (id>?)",
		selectKey + "WHERE project = 'p' AND id > 'a' ORDER BY id LIMIT 9":             "SEARCH auth_keys USING INDEX auth_keys_project (project=? AND id>?)",
		strings.NewReplacer("> ?", "> 1", "LIMIT ?", "LIMIT 9").Replace(selectChanges): "SEARCH auth_records USING INDEX auth_records_revision (revision>?)",
		"SELECT at FROM auth_records WHERE key_id = 'a' ORDER BY seq DESC LIMIT 9":     "SEARCH auth_records USING INDEX auth_records_key (key_id=?)",
	} {
		rows, err := s.read.Query("EXPLAIN QUERY PLAN " + query)
		if err != nil {
			t.Fatal(err)
		}
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			plan = append(plan, detail)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		all := strings.Join(plan, "\n")
		if !strings.Contains(all, want) || strings.Contains(all, "SCAN auth_keys") || strings.Contains(all, "SCAN auth_records") {
			t.Errorf("%s\nplan: %s\nwant: %s", query, all, want)
		}
		if strings.Contains(all, "TEMP B-TREE") && !strings.Contains(query, "auth_revision") {
			t.Errorf("%s\nsorts: %s", query, all)
		}
	}
}
