"""What the pages share: routes, template tags, error pages, catalogues, front-end files."""
