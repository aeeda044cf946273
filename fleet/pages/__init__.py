"""Everything the browser pages share: routes, template tags, error pages, catalogues, front-end files."""
